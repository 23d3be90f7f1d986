//! Running a kernel once and reading what it wrote to its console.
//!
//! Key types: [`Boot`], what to run, and [`Console`], its text, in parts: `kernel/boot/init` writes
//! `@@@ NAME` before each.

use super::build::Arch;
use super::{Place, recorded};
use crate::{Answer, child};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that the initramfs has, all of them busybox.
const APPLETS: [&str; 14] = [
    "sh", "mount", "cat", "echo", "tr", "sed", "poweroff", "reboot", "ls", "rm", "mkdir", "head",
    "wc", "grep",
];
/// Longest boot under emulation on a busy machine.
const LIMIT_SECONDS: &str = "900";
/// Emulation is slow: what stands still for minutes is no fault, nor is a timer that comes late while
/// Linux looks for it. A panic ends the run at once.
const PATIENCE: &str = "rcupdate.rcu_cpu_stall_timeout=300 no_timer_check panic=-1";

/// One run of a kernel.
pub struct Boot<'b> {
    /// What it was built for.
    pub arch: Arch,
    /// Where it lies.
    pub kernel: &'b Path,
    /// Where the initramfs lies.
    pub initramfs: &'b Path,
    /// Its memory, as the machine takes it.
    pub memory: &'b str,
    /// The rest of its command line.
    pub line: String,
}

/// What a kernel wrote.
pub struct Console(pub String);

impl Boot<'_> {
    /// Runs it to its end and keeps the console in `log`.
    pub fn run(&self, log: &Path) -> Answer<Console> {
        let mut command = Command::new("timeout");
        command.arg(LIMIT_SECONDS);
        if self.arch == Arch::Uml {
            self.uml(&mut command);
        } else {
            self.qemu(&mut command);
        }
        let ran = child::run(command.stdin(std::process::Stdio::null()))?;
        let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &ran.errors();
        let text = text.replace('\r', "");
        fs::write(log, &text).map_err(|e| format!("{}: {e}", log.display()))?;
        if !text.contains("@@@ end") {
            return Err(format!(
                "the kernel did not come to its end; see {}",
                log.display()
            ));
        }
        Ok(Console(text))
    }

    fn uml(&self, command: &mut Command) {
        // The C library registers memory with the host that UML's stub unmaps; a newer host kills
        // the stub for it.
        command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
        command.arg(self.kernel).arg(format!("mem={}", self.memory));
        command.arg(format!("initrd={}", self.initramfs.display()));
        command.args([
            "con=null",
            "con0=null,fd:2",
            "con1=fd:0,fd:1",
            "console=tty0",
        ]);
        command.args(self.line.split_whitespace());
    }

    fn qemu(&self, command: &mut Command) {
        command.args([
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
        ]);
        // The table of processors that Linux gets names one for each socket.
        command.args(["-smp", "2,sockets=2", "-m", self.memory, "-nographic"]);
        command.arg("-no-reboot");
        command
            .args(["-nodefaults", "-serial", "stdio", "-kernel"])
            .arg(self.kernel);
        command.arg("-initrd").arg(self.initramfs);
        let line = format!("console=ttyS0 sdend=reboot {PATIENCE} {}", self.line);
        command.arg("-append").arg(line);
    }
}

impl Console {
    /// The text of a part; the last one of that name.
    pub fn part(&self, name: &str) -> Option<&str> {
        let start = self.0.rfind(&format!("@@@ {name}\n"))?;
        let text = self.0.get(start..)?.split_once('\n')?.1;
        Some(text.split("@@@ ").next().unwrap_or(text))
    }

    /// The number behind `name: ` in a part.
    pub fn number(&self, part: &str, name: &str) -> Answer<u64> {
        let line = self.part(part).and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        });
        line.and_then(|value| value.trim().parse().ok())
            .ok_or(format!("no `{name}` in {part}"))
    }

    /// Pass, fail and skip of a KUnit suite.
    pub fn suite(&self, name: &str) -> Option<[u32; 3]> {
        let line = self.0.lines().find_map(|line| {
            line.split_once(&format!("# {name}: pass:"))
                .map(|found| found.1)
        })?;
        let mut numbers = line
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok());
        Some([numbers.next()?, numbers.next()?, numbers.next()?])
    }

    /// Lines that a healthy kernel does not write. KASAN's own reports are what its suite asks for; the C depot
    /// that ours is compared with warns when it is full.
    pub fn complaints(&self) -> Vec<&str> {
        const BAD: [&str; 9] = [
            "WARNING: ",
            "BUG: ",
            "Oops",
            "rcu: INFO",
            "INFO: task",
            "suspicious RCU",
            "possible circular",
            "possible recursive",
            "Kernel panic",
        ];
        let is_bad = |line: &&str| {
            BAD.iter().any(|bad| line.contains(bad))
                && !line.contains("BUG: KASAN: ")
                && !(line.contains("WARNING: ") && line.contains(" at c_depot_"))
        };
        self.0.lines().filter(is_bad).collect()
    }
}

/// Packs the initramfs: busybox and `kernel/boot/init`.
pub fn initramfs(place: &Place) -> Answer<PathBuf> {
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.add(folder, 0o040_755, [0, 0], b"");
    }
    for (name, minor) in [("dev/null", 3), ("dev/zero", 5)] {
        archive.add(name, 0o020_666, [1, minor], b"");
    }
    archive.add("dev/console", 0o020_600, [5, 1], b"");
    archive.add(
        "init",
        0o100_755,
        [0, 0],
        &read(&place.ours.join("boot/init"))?,
    );
    archive.add(
        "bin/busybox",
        0o100_755,
        [0, 0],
        &read(Path::new("/bin/busybox"))?,
    );
    if let Some(recorded) = &place.recorded {
        archive.add("stacks.bin", 0o100_644, [0, 0], &recorded::words(recorded)?);
    }
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), 0o120_777, [0, 0], b"busybox");
    }
    archive.add("TRAILER!!!", 0, [0, 0], b"");
    let file = place.work.join("initramfs.cpio");
    fs::write(&file, archive.bytes).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

/// An archive in cpio's "newc" format, which needs no root to hold device nodes.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: [u32; 2], data: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (data.len() as u32, name.len() as u32 + 1);
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device[0],
            device[1],
            name_size,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_numbers_and_suites_are_found() {
        let text = "x\n# kasan: pass:59 fail:0 skip:13 total:72\n@@@ stats\nbytes: 5\n@@@ stats\nbytes: 7\n@@@ end\n";
        let console = Console(text.to_owned());
        assert_eq!(console.suite("kasan"), Some([59, 0, 13]));
        assert_eq!(console.suite("other"), None);
        assert_eq!(console.number("stats", "bytes"), Ok(7));
        assert!(console.number("stats", "slots").is_err());
    }

    #[test]
    fn reports_that_the_suite_asks_for_are_no_complaints() {
        let console = Console("BUG: KASAN: double-free in x\nfine\n".to_owned());
        assert!(console.complaints().is_empty());
        // C's depot, in a comparison that it is too small for.
        let console = Console("WARNING: CPU: 0 PID: 87 at c_depot_save_flags+0x732/0x780\n".into());
        assert!(console.complaints().is_empty());
        let console = Console("WARNING: CPU: 0 PID: 87 at stack_depot_save_flags+0x2/0x7\n".into());
        assert_eq!(console.complaints().len(), 1);
        let console = Console("[ 1.0] BUG: unable to\nWARNING: CPU: 0\n".to_owned());
        assert_eq!(console.complaints().len(), 2);
    }
}
