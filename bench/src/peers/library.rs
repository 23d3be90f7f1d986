//! Peers in C: shared objects that the build of the benchmark put into one folder.
//!
//! Key type: [`Library`], an object that was loaded for good.
#![allow(unsafe_code)] // dlopen

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Says once where the shared objects are.
pub fn set_folder(folder: PathBuf) {
    let _ = FOLDER.set(folder);
}

/// Why the object of that name cannot be had, if so.
pub fn missing(name: &str) -> Option<String> {
    let path = path(name);
    (!path.is_file()).then(|| format!("{} is not there", path.display()))
}

fn path(name: &str) -> PathBuf {
    FOLDER
        .get()
        .cloned()
        .unwrap_or_default()
        .join(format!("{name}.so"))
}

/// A loaded object.
#[derive(Clone, Copy, Debug)]
pub struct Library(*mut c_void);

impl Library {
    /// Loads `NAME.so`, or ends the process: who calls asked `missing` before.
    pub fn open(name: &str) -> Library {
        let path = CString::new(path(name).into_os_string().into_encoded_bytes())
            .expect("paths have no zero bytes");
        // SAFETY: the object is one that our build made for being loaded.
        let object = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(
            !object.is_null(),
            "{} cannot be loaded",
            path.to_string_lossy()
        );
        Library(object)
    }

    /// A function.
    ///
    /// # Safety
    /// `F` is the type of a function pointer, and the function of that name has it.
    pub unsafe fn function<F: Copy>(self, name: &str) -> F {
        let symbol = CString::new(name).expect("names have no zero bytes");
        // SAFETY: `self.0` is open, `symbol` ends with a zero byte.
        let address = unsafe { libc::dlsym(self.0, symbol.as_ptr()) };
        assert!(!address.is_null(), "{name} is not in the object");
        assert_eq!(size_of::<F>(), size_of_val(&address));
        // SAFETY: the caller says that this address is an `F`.
        unsafe { std::mem::transmute_copy(&address) }
    }
}
