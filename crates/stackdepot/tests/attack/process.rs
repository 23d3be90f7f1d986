//! Child processes of an attack: forked, killed, waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A forked process.
pub struct Child(libc::pid_t);

impl Child {
    /// Runs `work` in a fork of this process, which ends with it: code 0, or 1 for a panic.
    pub fn fork(work: impl FnOnce()) -> Child {
        // SAFETY: the child uses nothing that another thread of this process may have locked,
        // but the allocator, which the C library makes usable.
        let id = unsafe { libc::fork() };
        assert!(id >= 0, "cannot fork");
        if id == 0 {
            let is_done = catch_unwind(AssertUnwindSafe(work)).is_ok();
            // SAFETY: ends the child at once, without this process's exit handlers.
            unsafe { libc::_exit(i32::from(!is_done)) };
        }
        Child(id)
    }

    /// Kills it; answers the signal that it died of.
    pub fn kill(self) -> Option<libc::c_int> {
        // SAFETY: a child that nobody waited for: its id is still its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        let status = self.status();
        libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
    }

    /// Waits for its end; answers whether it ended by itself, and well.
    pub fn ended_well(self) -> bool {
        self.status() == 0
    }

    fn status(&self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: `status` is valid for the call. The loop ends with the child.
        while unsafe { libc::waitpid(self.0, &mut status, 0) } != self.0 {}
        status
    }
}

/// Lets a signal interrupt this process's threads; a handler does not interrupt itself.
pub fn interrupt_on(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeros is a valid sigaction; handlers use lock-free code and atomics only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}
