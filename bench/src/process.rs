//! Sides in processes of their own: each starts from untouched memory and may be global.
//!
//! Key type: [`Worker`], a forked child that makes its side and then takes one round after the other
//! on demand, so that the parent can interleave the rounds of all sides. The workloads are
//! shared with the parent, copied by nobody.
#![allow(unsafe_code)] // fork, and descriptors that come from `pipe`

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One round: a value for each measure of the task, or what went wrong.
pub type Round<'w> = Box<dyn FnMut() -> Result<Vec<f64>, String> + 'w>;

/// A child that takes rounds.
#[derive(Debug)]
pub struct Worker {
    pid: libc::pid_t,
    to: File,
    from: File,
}

impl Worker {
    /// Forks; the child makes its side with `make`. This process must have one thread only.
    pub fn start<'w>(make: impl FnOnce() -> Result<Round<'w>, String>) -> Result<Worker, String> {
        let (orders, to) = pipe()?;
        let (from, answers) = pipe()?;
        // SAFETY: this process has one thread, so the child's locks are all open.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(format!("fork: {}", std::io::Error::last_os_error()));
        }
        if pid == 0 {
            drop((to, from));
            let status = catch_unwind(AssertUnwindSafe(|| serve(orders, answers, make)));
            // SAFETY: ends the child at once; the parent's destructors are not ours to run.
            unsafe { libc::_exit(i32::from(status.is_err())) }
        }
        Ok(Worker { pid, to, from })
    }

    /// Lets the child take one round.
    pub fn round(&mut self) -> Result<Vec<f64>, String> {
        let ended = |_| "its process ended early".to_owned();
        self.to.write_all(b"r").map_err(ended)?;
        let mut head = [0; 8];
        self.from.read_exact(&mut head).map_err(ended)?;
        let [kind, _, _, _, length @ ..] = head;
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.from.read_exact(&mut body).map_err(ended)?;
        if kind == b'e' {
            return Err(String::from_utf8_lossy(&body).into_owned());
        }
        let values = body.chunks_exact(8).map(|bytes| {
            let bits: [u8; 8] = bytes.try_into().unwrap_or_default();
            f64::from_le_bytes(bits)
        });
        Ok(values.collect())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: our own child, waited for once; it may be in the middle of nothing we need.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// The child: makes its side at the first order, answers each one.
fn serve<'w>(
    mut orders: File,
    mut answers: File,
    make: impl FnOnce() -> Result<Round<'w>, String>,
) {
    let mut made = make();
    let mut order = [0];
    while orders.read_exact(&mut order).is_ok() {
        let answer = match &mut made {
            Ok(round) => round(),
            Err(message) => Err(message.clone()),
        };
        let (kind, body) = match answer {
            Ok(values) => (b'v', values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Err(message) => (b'e', message.into_bytes()),
        };
        let mut head = vec![kind, 0, 0, 0];
        head.extend((body.len() as u32).to_le_bytes());
        if answers
            .write_all(&head)
            .and_then(|()| answers.write_all(&body))
            .is_err()
        {
            return;
        }
    }
}

fn pipe() -> Result<(File, File), String> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(format!("pipe: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: both were just opened and belong to nobody else.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}
