//! The few system calls that the writer needs, raw: not interposable, no cancellation point, `errno` kept.
//!
//! Everything here may run inside a malloc hook: nothing allocates, nothing blocks on a lock.
#![allow(unsafe_code)] // the door to the kernel

use core::ffi::CStr;
use core::ptr::NonNull;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::process::Text;

/// The error number of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// How often a call that a signal interrupted is tried again.
const INTERRUPT_LIMIT: usize = 64;

/// An open file; closed on drop.
#[derive(Debug)]
pub(crate) struct Fd(i32);

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open until `self` is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the number is ours and not used after this.
        let _ = unsafe { call(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Makes one system call; `errno` is afterwards what it was before.
///
/// # Safety
/// The arguments must be what call `number` asks for: pointers valid for what the kernel does with them.
unsafe fn call(number: libc::c_long, a: [usize; 6]) -> Result<usize, Errno> {
    let [a0, a1, a2, a3, a4, a5] = a;
    // SAFETY: the C library always has a valid errno for the calling thread; the rest is the caller's.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let answer = libc::syscall(number, a0, a1, a2, a3, a4, a5);
        if answer != -1 {
            return Ok(answer as usize);
        }
        let error = *errno;
        *errno = before;
        Err(Errno(error))
    }
}

/// Calls again while signals interrupt, within a limit.
fn retry(mut attempt: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    let mut answer = attempt();
    for _ in 0..INTERRUPT_LIMIT {
        if answer != Err(Errno(libc::EINTR)) {
            break;
        }
        answer = attempt();
    }
    answer
}

pub(crate) fn open(path: &CStr, flags: i32, mode: u32) -> Result<Fd, Errno> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let arguments = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        flags as usize,
        mode as usize,
        0,
        0,
    ];
    // SAFETY: `path` is a terminated string that outlives the call.
    let fd = retry(|| unsafe { call(libc::SYS_openat, arguments) })?;
    Ok(Fd(fd as i32))
}

pub(crate) fn unlink(path: &CStr) -> Result<(), Errno> {
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: `path` is a terminated string that outlives the call.
    unsafe { call(libc::SYS_unlinkat, arguments) }.map(drop)
}

/// Gives a file a second name; fails when there is anything of that name.
pub(crate) fn link(path: &CStr, name: &CStr) -> Result<(), Errno> {
    link_at(path, name, 0)
}

/// Gives an open file a name, also one that has none; fails when there is anything of that name.
pub(crate) fn link_open_file(fd: &Fd, name: &CStr) -> Result<(), Errno> {
    let mut buffer = [0u8; 48];
    let mut text = Text::new(&mut buffer);
    // The thread's own: threads need not share their descriptors.
    text.push(b"/proc/thread-self/fd/");
    text.push_number(fd.0 as u64);
    let path = text.finish().ok_or(Errno(libc::ENAMETOOLONG))?;
    link_at(path, name, libc::AT_SYMLINK_FOLLOW)
}

fn link_at(path: &CStr, name: &CStr, flags: i32) -> Result<(), Errno> {
    let here = libc::AT_FDCWD as usize;
    let (path, name) = (path.as_ptr() as usize, name.as_ptr() as usize);
    // SAFETY: terminated strings that outlive the call.
    unsafe {
        call(
            libc::SYS_linkat,
            [here, path, here, name, flags as usize, 0],
        )
    }
    .map(drop)
}

/// Renames a file; fails when there is anything of that name, and where a file system cannot tell.
pub(crate) fn rename_to_free_name(path: &CStr, name: &CStr) -> Result<(), Errno> {
    let here = libc::AT_FDCWD as usize;
    let (path, name) = (path.as_ptr() as usize, name.as_ptr() as usize);
    let flags = libc::RENAME_NOREPLACE as usize;
    // SAFETY: terminated strings that outlive the call.
    unsafe { call(libc::SYS_renameat2, [here, path, here, name, flags, 0]) }.map(drop)
}

/// Type and permission bits, owner and size of an open file.
pub(crate) struct FileStatus {
    pub(crate) is_regular: bool,
    pub(crate) uid: u32,
    pub(crate) bytes: u64,
}

pub(crate) fn status(fd: &Fd) -> Result<FileStatus, Errno> {
    // SAFETY: all zeros is a valid `stat`, which the kernel fills.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    let arguments = [fd.0 as usize, &raw mut stat as usize, 0, 0, 0, 0];
    // SAFETY: on x86-64 the kernel's structure is the C library's.
    unsafe { call(libc::SYS_fstat, arguments) }?;
    Ok(FileStatus {
        is_regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        uid: stat.st_uid,
        bytes: stat.st_size as u64,
    })
}

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: no arguments.
    unsafe { call(libc::SYS_geteuid, [0; 6]) }.unwrap_or(0) as u32
}

pub(crate) fn pid() -> u32 {
    // SAFETY: no arguments.
    unsafe { call(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as u32
}

pub(crate) fn thread_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { call(libc::SYS_gettid, [0; 6]) }.unwrap_or(0) as u32
}

pub(crate) fn parent_pid() -> u32 {
    // SAFETY: no arguments.
    unsafe { call(libc::SYS_getppid, [0; 6]) }.unwrap_or(0) as u32
}

/// Reads once at `offset`; fewer bytes than asked for mean the end, or a file of the kernel.
pub(crate) fn read_at(fd: &Fd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let arguments = [
        fd.0 as usize,
        buffer.as_mut_ptr() as usize,
        buffer.len(),
        offset as usize,
        0,
        0,
    ];
    // SAFETY: the buffer is ours and as long as said.
    retry(|| unsafe { call(libc::SYS_pread64, arguments) })
}

/// Where the next bytes at or after `offset` lie that the file system stores; `None`: only holes, or
/// nothing, follow. A file system that does not tell has no holes. Moves the file's position.
pub(crate) fn next_data(fd: BorrowedFd<'_>, offset: u64) -> Option<u64> {
    let arguments = [
        fd.as_raw_fd() as usize,
        offset as usize,
        libc::SEEK_DATA as usize,
        0,
        0,
        0,
    ];
    // SAFETY: plain numbers.
    match unsafe { call(libc::SYS_lseek, arguments) } {
        Ok(found) => Some((found as u64).max(offset)),
        Err(Errno(libc::ENXIO)) => None,
        Err(_) => Some(offset),
    }
}

/// Sets the permission bits, which the umask may have narrowed.
pub(crate) fn set_mode(fd: &Fd, mode: u32) -> Result<(), Errno> {
    let arguments = [fd.0 as usize, mode as usize, 0, 0, 0, 0];
    // SAFETY: plain numbers.
    unsafe { call(libc::SYS_fchmod, arguments) }.map(drop)
}

/// Gives a new file its bytes now, so that no store into it ever finds the disk full (SIGBUS).
pub(crate) fn preallocate(fd: &Fd, bytes: u64) -> Result<(), Errno> {
    // Growing past the limit would raise SIGXFSZ, which kills by default: look first.
    if bytes > file_size_limit() {
        return Err(Errno(libc::EFBIG));
    }
    let arguments = [fd.0 as usize, 0, 0, bytes as usize, 0, 0];
    // SAFETY: plain numbers.
    match retry(|| unsafe { call(libc::SYS_fallocate, arguments) }) {
        Ok(_) => Ok(()),
        Err(Errno(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINTR | libc::EPERM)) => {
            write_zeros(fd, bytes)
        }
        Err(error) => Err(error),
    }
}

/// What `preallocate` falls back to where the file system cannot reserve.
fn write_zeros(fd: &Fd, bytes: u64) -> Result<(), Errno> {
    static ZEROS: [u8; 65536] = [0; 65536];
    let mut offset = 0;
    while offset < bytes {
        let length = (bytes - offset).min(ZEROS.len() as u64) as usize;
        let arguments = [
            fd.0 as usize,
            ZEROS.as_ptr() as usize,
            length,
            offset as usize,
            0,
            0,
        ];
        // SAFETY: the zeros are static and at least `length` long.
        match retry(|| unsafe { call(libc::SYS_pwrite64, arguments) })? {
            0 => return Err(Errno(libc::ENOSPC)),
            written => offset += written as u64, // ends: every round adds at least one byte
        }
    }
    Ok(())
}

fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let arguments = [
        0,
        libc::RLIMIT_FSIZE as usize,
        0,
        &raw mut limit as usize,
        0,
        0,
    ];
    // SAFETY: asks about the calling process; `limit` is a valid place for the answer.
    match unsafe { call(libc::SYS_prlimit64, arguments) } {
        Ok(_) => limit.rlim_cur,
        Err(_) => u64::MAX,
    }
}

/// Maps the first `bytes` of a file, shared and writable.
pub(crate) fn map(fd: &Fd, bytes: usize) -> Result<NonNull<u8>, Errno> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let arguments = [
        0,
        bytes,
        protection,
        libc::MAP_SHARED as usize,
        fd.0 as usize,
        0,
    ];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe { call(libc::SYS_mmap, arguments) }?;
    NonNull::new(address as *mut u8).ok_or(Errno(libc::ENOMEM))
}

/// Takes a mapping away.
///
/// # Safety
/// The mapping must be `map`'s, of that length, and never used again.
pub(crate) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe {
        call(
            libc::SYS_munmap,
            [base.as_ptr() as usize, bytes, 0, 0, 0, 0],
        )
    };
}

/// Takes the write lock of an open file without waiting. The kernel keeps it while a mapping made
/// through `fd` exists, and drops it when the process dies.
pub(crate) fn lock(fd: &Fd) -> Result<(), Errno> {
    let arguments = [
        fd.0 as usize,
        (libc::LOCK_EX | libc::LOCK_NB) as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: plain numbers.
    unsafe { call(libc::SYS_flock, arguments) }.map(drop)
}

/// Whether a process has a file locked (`lock`); `None` when the file system does not tell.
///
/// Takes a shared lock for a moment: askers do not see each other.
pub(crate) fn is_locked(fd: BorrowedFd<'_>) -> Option<bool> {
    let change = |operation: i32| {
        let arguments = [fd.as_raw_fd() as usize, operation as usize, 0, 0, 0, 0];
        // SAFETY: plain numbers.
        unsafe { call(libc::SYS_flock, arguments) }
    };
    match change(libc::LOCK_SH | libc::LOCK_NB) {
        Ok(_) => {
            let _ = change(libc::LOCK_UN);
            Some(false)
        }
        Err(Errno(libc::EAGAIN)) => Some(true),
        Err(_) => None,
    }
}

/// Whether a process with this number exists (a zombie does).
pub(crate) fn pid_exists(pid: u32) -> bool {
    // SAFETY: signal 0 only asks.
    let answer = unsafe { call(libc::SYS_kill, [pid as usize, 0, 0, 0, 0, 0]) };
    answer != Err(Errno(libc::ESRCH))
}

/// A random word; the time stamp counter's, mixed, where the kernel has none ready.
pub(crate) fn random_word() -> u64 {
    let mut word = 0u64;
    let arguments = [
        &raw mut word as usize,
        8,
        libc::GRND_NONBLOCK as usize,
        0,
        0,
        0,
    ];
    // SAFETY: eight bytes, ours.
    match unsafe { call(libc::SYS_getrandom, arguments) } {
        Ok(8) => word,
        _ => crate::clock::tsc()
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31),
    }
}

/// The target of a symbolic link; cut when the buffer is too small.
pub(crate) fn read_link(path: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    let arguments = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        buffer.as_mut_ptr() as usize,
        buffer.len(),
        0,
        0,
    ];
    // SAFETY: a terminated string and a buffer as long as said.
    unsafe { call(libc::SYS_readlinkat, arguments) }
}

/// Sleeps about `milliseconds`; less when a signal comes.
pub(crate) fn sleep(milliseconds: u32) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(milliseconds) * 1_000_000,
    };
    // SAFETY: `time` is valid; no answer is asked for.
    let _ = unsafe {
        call(
            libc::SYS_nanosleep,
            [&raw const time as usize, 0, 0, 0, 0, 0],
        )
    };
}
