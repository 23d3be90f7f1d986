//! The process's recording: started at its first event, found again by every later one, taken up
//! anew by a forked child.
//!
//! [`recorder`] is one load from a page that the kernel empties in the child of every fork
//! (`MADV_WIPEONFORK`), `_Fork` and raw `clone` too: a child sees no recorder and gets a region file
//! of its own at its first event, without a system call per event. `vfork` shares the memory, so
//! its child is recorded as its parent until it executes. What cannot be recorded (no orders, no
//! privileges, seccomp, file size limit) goes on unrecorded; a child is counted in the run's ledger.

#![allow(unsafe_code)] // process-wide state behind raw pointers

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use stackdepot_region::counters::Counter;
use stackdepot_region::format::{LEDGER_OFFSET, PAGE_BYTES};
use stackdepot_region::ledger::Ledger;
use stackdepot_region::poisson::ByteSampling;
use stackdepot_region::writer::{RegionWriter, Scope};

use crate::scratch::MAX_FRAMES;
use crate::{environment, faults, memory, modules, sampled, scratch, thread, unwind};

/// What one process records with; never freed, so that a thread may always finish with it.
pub struct Recorder {
    /// The region file.
    pub region: RegionWriter,
    /// How many fork generations lie between the program's start and this process, from 1.
    pub epoch: u32,
    /// Which blocks are recorded.
    pub sampling: ByteSampling,
    /// Every how many events a second stack is taken; 0: never.
    pub check_interval: u32,
    executable: Path,
}

/// The path of the program's file.
struct Path {
    bytes: [u8; 1024],
    length: usize,
}

impl Recorder {
    /// The path of the program's file; empty when the kernel does not tell.
    pub fn executable(&self) -> &[u8] {
        self.executable
            .bytes
            .get(..self.executable.length)
            .unwrap_or_default()
    }
}

impl Recorder {
    /// Whether a block that the live table does not know is none: a forked child inherits blocks,
    /// and what was lost may be freed all the same.
    #[cold]
    pub fn knows_every_block(&self) -> bool {
        let region = &self.region;
        let is_first = self.epoch == 1;
        is_first
            && !self.sampling.is_on()
            && region.counters.value(Counter::EventsUnrecorded) == 0
            && region.live.stats().lost == 0
    }
}

impl Path {
    /// Fills a path of zeros, where it lies: a handler's stack may be small.
    fn read_executable(&mut self) {
        // SAFETY: a terminated path and a buffer as long as said.
        let length = unsafe {
            libc::readlink(
                c"/proc/self/exe".as_ptr(),
                self.bytes.as_mut_ptr().cast(),
                self.bytes.len(),
            )
        };
        self.length = usize::try_from(length).unwrap_or(0);
    }
}

/// Nothing is known yet: a fresh process image, or a fork's child.
const FRESH: u32 = 0;
/// The recorder is there.
const ON: u32 = u32::MAX;
/// There will be none.
const OFF: u32 = u32::MAX - 1;

/// Of which a start takes about a tenth.
const START_STACK_BYTES: usize = 64 << 10;

/// The page that forking empties.
#[repr(C, align(4096))]
struct Control {
    recorder: AtomicPtr<Recorder>,
    /// FRESH, ON, OFF, or the pid of the process in which a thread is making the recorder.
    progress: AtomicU32,
    /// Events that came meanwhile.
    missed: AtomicU64,
    unused: [u8; 4072],
}

const _: () = assert!(size_of::<Control>() == 4096);

static CONTROL: Control = Control {
    recorder: AtomicPtr::new(null_mut()),
    progress: AtomicU32::new(FRESH),
    missed: AtomicU64::new(0),
    unused: [0; 4072],
};

/// Inherited by children: the generation, and where this process (or its ancestor) recorded.
static EPOCH: AtomicU32 = AtomicU32::new(0);
static LEDGER: AtomicPtr<Ledger> = AtomicPtr::new(null_mut());
static OLD_BASE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static OLD_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Whether this process or an ancestor was seen to put seccomp on; whether it was on at the start.
static CONFINED: AtomicBool = AtomicBool::new(false);
static SECCOMP_AT_START: AtomicI32 = AtomicI32::new(0);
/// Key whose destructor runs at the end of each thread; 0: none yet (stored plus one).
static END_KEY: AtomicU32 = AtomicU32::new(0);

/// The process's recorder, started now if this is its first event; `None`: do not record.
#[inline]
pub fn recorder() -> Option<&'static Recorder> {
    // ORDERING: Acquire, partner: the Release in `publish`; carries the recorder's contents.
    let recorder = CONTROL.recorder.load(Ordering::Acquire);
    // SAFETY: null, or published by `publish` and never freed.
    match unsafe { recorder.as_ref() } {
        Some(recorder) => Some(recorder),
        None => first_event(),
    }
}

/// Whether this is still the process's recorder: not in the child that a handler has forked since.
#[inline]
pub fn is_current(recorder: &Recorder) -> bool {
    core::ptr::eq(CONTROL.recorder.load(Ordering::Relaxed), recorder)
}

/// The recorder if it is there already.
pub fn running() -> Option<&'static Recorder> {
    // ORDERING: Acquire, partner: the Release in `publish`.
    // SAFETY: null, or published by `publish` and never freed.
    unsafe { CONTROL.recorder.load(Ordering::Acquire).as_ref() }
}

/// The process is about to give up system calls: a recording that has not started never will, nor
/// that of a child forked from here on.
pub fn enter_confinement() {
    CONFINED.store(true, Ordering::Relaxed);
    // ORDERING: Relaxed: nothing is handed over; who starts right now goes on.
    let refused =
        CONTROL
            .progress
            .compare_exchange(FRESH, OFF, Ordering::Relaxed, Ordering::Relaxed);
    if refused.is_ok() {
        count_unrecorded();
    }
}

/// The process is about to lose what every event needs (the time stamp counter): from here on it
/// runs unrecorded, and says so in its file.
pub fn stop() {
    faults::disarm();
    match running() {
        Some(_) => {
            CONFINED.store(true, Ordering::Relaxed);
            CONTROL.progress.store(OFF, Ordering::Relaxed);
            CONTROL.recorder.store(null_mut(), Ordering::Relaxed);
            count_unrecorded();
        }
        None => enter_confinement(),
    }
}

#[cold]
#[inline(never)]
fn first_event() -> Option<&'static Recorder> {
    // ORDERING: Acquire, partner: the Release of ON in `publish`: then the recorder is there.
    let progress = CONTROL.progress.load(Ordering::Acquire);
    match progress {
        FRESH => {}
        ON => return running(),
        OFF => return None,
        starter if starter == own_pid() => return came_meanwhile(),
        // A child, forked before the page was one that forking empties: what it inherited says nothing.
        _ => {}
    }
    // Before the claim: a handler that jumps away must not leave it behind.
    let _quiet = Quiet::begin();
    // ORDERING: Relaxed: only decides who starts; the recorder is published separately.
    let claim = CONTROL.progress.compare_exchange(
        progress,
        own_pid(),
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    if claim.is_err() {
        return came_meanwhile();
    }
    let started = if CONFINED.load(Ordering::Relaxed) {
        count_unrecorded();
        None
    } else {
        start_on_own_stack()
    };
    if started.is_none() {
        CONTROL.progress.store(OFF, Ordering::Relaxed);
    }
    started
}

/// An event while another thread starts the recording: it is counted, now or by that thread.
fn came_meanwhile() -> Option<&'static Recorder> {
    if let Some(recorder) = running() {
        return Some(recorder);
    }
    // ORDERING: Acquire, partner: the Release in `count_missed`: whose swap came before our one
    // published the recorder, and we see it; whose swap comes after it counts our event.
    CONTROL.missed.fetch_add(1, Ordering::Acquire);
    if let Some(recorder) = running() {
        count_missed(recorder);
    }
    None
}

fn count_missed(recorder: &Recorder) {
    // ORDERING: Release, partner: the Acquire in `came_meanwhile`.
    let missed = CONTROL.missed.swap(0, Ordering::Release);
    let counters = recorder.region.counters;
    counters.add(Counter::EventsUnrecorded, 0, missed);
}

/// Starts on a stack mapped for it: this event may be a signal handler's, with a stack of 8 KiB
/// of which the kernel's frame took three.
fn start_on_own_stack() -> Option<&'static Recorder> {
    extern "C" fn on_stack(_: *mut c_void) {
        start();
    }
    let Some(base) = memory::map(START_STACK_BYTES) else {
        count_unrecorded();
        return None;
    };
    // SAFETY: fresh pages; nothing unwinds or is interrupted there: no panics, signals are blocked.
    unsafe { memory::call_on(base.as_ptr(), START_STACK_BYTES, on_stack, null_mut()) };
    memory::unmap(base.as_ptr(), START_STACK_BYTES);
    running()
}

/// Whether the process that asks is the recorder's: a vfork's child shares its parent's memory.
pub fn is_writer(recorder: &Recorder) -> bool {
    recorder.region.header.pid.load(Ordering::Relaxed) == u64::from(own_pid())
}

/// The number of the thread, from the kernel.
pub fn thread_id() -> u32 {
    // SAFETY: a plain question.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// The number of the process, from the kernel; no pid is FRESH, ON or OFF.
pub fn own_pid() -> u32 {
    // SAFETY: a plain question.
    unsafe { libc::getpid() as u32 }
}

/// One thread, once per process.
fn start() -> Option<&'static Recorder> {
    let epoch = EPOCH.load(Ordering::Relaxed);
    if epoch == 0 {
        // SAFETY: the first start of this program image: nobody reads yet.
        let orders = unsafe { environment::read() };
        orders.path()?;
    }
    // SAFETY: `read` was called above, or by the parent before it forked.
    let orders = unsafe { environment::known() };
    let path = orders.path()?;
    if epoch == 0 {
        SECCOMP_AT_START.store(seccomp_mode(), Ordering::Relaxed);
        if !wipe_on_fork() || !unwind::init(&modules::SINK) {
            return None;
        }
    } else {
        if seccomp_mode() != SECCOMP_AT_START.load(Ordering::Relaxed) {
            count_unrecorded();
            return None;
        }
        become_child();
    }
    // Last: a child that another thread forks meanwhile does all of it again.
    EPOCH.store(epoch + 1, Ordering::Relaxed);
    let scope = Scope {
        max_frames: MAX_FRAMES as u32,
        sampling: ByteSampling::new(orders.sample_bytes),
    };
    let region = open_region(path, orders.total_bytes, scope)?;
    make_end_key();
    sampled::start(scope.sampling);
    publish(region, epoch + 1, scope.sampling, orders.check_interval)
}

/// A fork's child takes over what its parent left in memory.
fn become_child() {
    let scratch = thread::current_scratch();
    leave_parents_region();
    scratch::keep_only(scratch);
    unwind::fork_child(scratch::unwinder_of(scratch));
}

fn open_region(path: &core::ffi::CStr, total_bytes: usize, scope: Scope) -> Option<RegionWriter> {
    // SAFETY: null, or a mapping of the ledger that is never taken away.
    let ledger = unsafe { LEDGER.load(Ordering::Relaxed).as_ref() };
    let opened = match ledger {
        Some(ledger) => RegionWriter::create_child(ledger, path, scope),
        None => RegionWriter::join_run(path, total_bytes as u64, scope),
    };
    opened.ok()
}

fn publish(
    region: RegionWriter,
    epoch: u32,
    sampling: ByteSampling,
    check_interval: u32,
) -> Option<&'static Recorder> {
    let Some(place) = memory::map(size_of::<Recorder>()) else {
        count_unrecorded();
        return None;
    };
    let place = place.cast::<Recorder>().as_ptr();
    // SAFETY: fresh pages of zeros, large enough, page-aligned; zeros are a valid `Path`.
    let recorder: &'static Recorder = unsafe {
        (&raw mut (*place).region).write(region);
        (&raw mut (*place).epoch).write(epoch);
        (&raw mut (*place).sampling).write(sampling);
        (&raw mut (*place).check_interval).write(check_interval);
        (*place).executable.read_executable();
        &*place
    };
    let region = &recorder.region;
    LEDGER.store(
        core::ptr::from_ref(region.run_ledger).cast_mut(),
        Ordering::Relaxed,
    );
    OLD_BASE.store(region.base().as_ptr(), Ordering::Relaxed);
    OLD_BYTES.store(region.file_bytes(), Ordering::Relaxed);
    // ORDERING: Release, partner: the Acquire in `recorder` and `running`.
    CONTROL.recorder.store(place, Ordering::Release);
    count_missed(recorder);
    // ORDERING: Release, partner: the Acquire in `first_event`.
    CONTROL.progress.store(ON, Ordering::Release);
    Some(recorder)
}

/// In a child: what was being written when the parent forked must not reach the parent's file.
///
/// Its mapping is replaced by empty private memory, not taken away: a hook that a signal handler
/// interrupted to fork may still hold addresses in it. Where the run's ledger is in it, that page
/// stays; elsewhere nothing may keep the file's bytes in use.
pub fn leave_parents_region() {
    let base = OLD_BASE.swap(null_mut(), Ordering::Relaxed);
    if base.is_null() {
        return;
    }
    let bytes = OLD_BYTES.load(Ordering::Relaxed);
    let ledger = LEDGER.load(Ordering::Relaxed).cast::<u8>();
    if ledger == base.wrapping_add(LEDGER_OFFSET) {
        memory::replace(base, LEDGER_OFFSET);
        let rest = LEDGER_OFFSET + PAGE_BYTES;
        memory::replace(base.wrapping_add(rest), bytes - rest);
    } else {
        memory::replace(base, bytes);
    }
}

/// Whether the page of CONTROL will be empty in children.
fn wipe_on_fork() -> bool {
    let page = (&raw const CONTROL).cast_mut().cast();
    // SAFETY: whole pages of our own zero-initialised data.
    unsafe { libc::madvise(page, size_of::<Control>(), libc::MADV_WIPEONFORK) == 0 }
}

/// Whether seccomp was on already, as in a container: not a reason against recording, for what
/// lets a program start lets us make a file. A child that put it on itself is another matter.
fn seccomp_mode() -> i32 {
    // SAFETY: a plain question; the strict mode, which would kill for it, is watched by `prctl`.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) }
}

fn count_unrecorded() {
    // SAFETY: null, or a mapping of the ledger that is never taken away.
    if let Some(ledger) = unsafe { LEDGER.load(Ordering::Relaxed).as_ref() } {
        ledger.count_unrecorded();
    }
}

fn make_end_key() {
    if END_KEY.load(Ordering::Relaxed) != 0 {
        return;
    }
    let mut key = 0;
    // SAFETY: a valid place for the key and a function of the right type.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread::end)) } == 0 {
        END_KEY.store(key + 1, Ordering::Relaxed);
    }
}

/// Has the C library call `thread::end` when the running thread ends.
pub fn call_at_thread_end() {
    let key = END_KEY.load(Ordering::Relaxed);
    if key != 0 {
        // SAFETY: a key of ours; any value that is not null will do.
        unsafe { libc::pthread_setspecific(key - 1, (&raw const CONTROL).cast()) };
    }
}

/// Keeps signals out and `errno` as it was while the recorder is started.
struct Quiet {
    mask: libc::sigset_t,
    errno: i32,
}

impl Quiet {
    fn begin() -> Quiet {
        // SAFETY: valid signal sets of this frame; errno always exists.
        unsafe {
            let mut all = core::mem::zeroed();
            let mut mask = core::mem::zeroed();
            libc::sigfillset(&raw mut all);
            let errno = *libc::__errno_location();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut mask);
            Quiet { mask, errno }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: the mask that `begin` found; errno always exists.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, null_mut());
            *libc::__errno_location() = self.errno;
        }
    }
}
