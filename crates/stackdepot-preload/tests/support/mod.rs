//! Builds the preload library and the test programs, runs programs bare and recorded, and reads
//! what was recorded.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::Snapshot;

/// The library as it is released, built once per test run into a target directory of its own.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = workspace_target().join("preload-under-test");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--release",
                "-p",
                "stackdepot-preload",
                "--target-dir",
            ])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the preload library does not build");
        target.join("release/libstackdepot_preload.so")
    })
}

/// `.../target`, from where the test itself lies: `target/debug/deps/NAME`.
fn workspace_target() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    test.ancestors()
        .nth(3)
        .expect("three folders up")
        .to_path_buf()
}

/// A folder for one test, emptied before and removed after.
pub struct Place(PathBuf);

impl Place {
    /// In shared memory where there is some: region files are sparse nowhere.
    pub fn new(name: &str) -> Place {
        let root = if Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        let path = root.join(format!("stackdepot-test-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("the folder can be made");
        Place(path)
    }

    /// The run's first region file.
    pub fn first(&self) -> PathBuf {
        self.0.join("first")
    }

    /// The region files of the run's later processes.
    pub fn children(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).expect("the folder is there");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("first."))
            })
            .collect()
    }

    /// Compiles a program of `tests/programs`; builtins off, so that every call is made.
    pub fn compile(&self, source: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/programs")
            .join(source);
        let is_cxx = source.ends_with(".cpp");
        let output = self.0.join(path.file_stem().expect("a name"));
        let status = Command::new(if is_cxx { "c++" } else { "cc" })
            .args(["-O1", "-g", "-w", "-fno-builtin", "-pthread"])
            .args(
                ["plugin.c", "waiter.c"]
                    .contains(&source)
                    .then_some(["-shared", "-fPIC"])
                    .into_iter()
                    .flatten(),
            )
            .arg("-o")
            .arg(&output)
            .arg(&path)
            .status()
            .expect("a C compiler is installed");
        assert!(status.success(), "{source} does not compile");
        output
    }

    /// Runs a program bare and recorded, checks that nobody can tell from its output and exit
    /// status, and answers the recorded run's output.
    pub fn record(&self, program: &Path, arguments: &[&str], bytes: usize) -> Output {
        let bare = Command::new(program)
            .args(arguments)
            .output()
            .expect("the program runs");
        let recorded = Command::new(program)
            .args(arguments)
            .env("LD_PRELOAD", library())
            .env("STACKDEPOT_RUN", self.first())
            .env("STACKDEPOT_BYTES", bytes.to_string())
            .output()
            .expect("the program runs");
        let status = |output: &Output| (output.status.code(), output.status.signal());
        assert_eq!(
            String::from_utf8_lossy(&recorded.stdout),
            String::from_utf8_lossy(&bare.stdout),
            "stderr: {}",
            String::from_utf8_lossy(&recorded.stderr)
        );
        assert_eq!(status(&recorded), status(&bare));
        recorded
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All of a region file.
pub fn snapshot(path: &Path) -> Snapshot {
    let file = RegionFile::open(path).expect("a region file");
    file.snapshot().expect("a readable region file")
}
