//! The real programs that `overhead` and `bars` run, each with a fixed input and a fixed output.
//!
//! Every program is Debian's own, called by its real path; inputs are generated or lie in
//! `xtask/programs`. Redis needs a client too and has a file of its own.

use crate::house::{House, system_program};
use crate::{Answer, child};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// SQL statements in the script of the sqlite3 workload.
const SQL_STATEMENT_COUNT: usize = 4800;

/// A program that runs to its end by itself.
pub struct Workload {
    /// What the tables call it.
    pub name: &'static str,
    program: OsString,
    arguments: Vec<OsString>,
    stdin: Option<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
    /// A file that it writes, which belongs to its output.
    pub product: Option<PathBuf>,
    /// A folder that must not be there when it starts.
    absent: Option<PathBuf>,
}

impl Workload {
    /// The command, with `prefix` (a recorder and its options) before it.
    pub fn command(&self, prefix: &[OsString]) -> Answer<Command> {
        if let Some(folder) = self.absent.as_ref().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let mut words = prefix.iter().chain([&self.program]).chain(&self.arguments);
        let mut command = Command::new(words.next().ok_or("no program")?);
        command
            .args(words)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(path) = &self.stdin {
            command.stdin(File::open(path).map_err(|e| format!("{}: {e}", path.display()))?);
        }
        Ok(command)
    }

    /// What it wrote into its product, empty when it has none.
    pub fn product_bytes(&self) -> Vec<u8> {
        self.product
            .as_ref()
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default()
    }
}

/// sqlite3, running a script over an in-memory database.
pub fn sqlite3(work: &Path) -> Answer<Workload> {
    let script = work.join("script.sql");
    fs::write(&script, sql()).map_err(|e| format!("{}: {e}", script.display()))?;
    Ok(Workload {
        name: "sqlite3",
        program: system_program("sqlite3")?.into(),
        arguments: vec![":memory:".into()],
        stdin: Some(script),
        variables: Vec::new(),
        product: None,
        absent: None,
    })
}

/// The system's python3 (not a shim), with every object from malloc, over its own library's source.
pub fn python3(house: &House) -> Answer<Workload> {
    Ok(Workload {
        name: "python3",
        program: system_program("python3")?.into(),
        arguments: vec![
            "-S".into(),
            house.source("stdlib_work.py").into(),
            "2".into(),
        ],
        stdin: None,
        variables: vec![
            ("PYTHONMALLOC", "malloc".into()),
            ("PYTHONHASHSEED", "0".into()),
        ],
        product: None,
        absent: None,
    })
}

/// The C++ compiler proper over a file full of templates.
pub fn cpp_compile(house: &House, work: &Path) -> Answer<Workload> {
    let found = child::must(Command::new(system_program("g++")?).arg("-print-prog-name=cc1plus"))?;
    let program = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    let product = work.join("templates.s");
    let options = [
        "-quiet",
        "-std=c++17",
        "-imultiarch",
        "x86_64-linux-gnu",
        "-D_GNU_SOURCE",
        "-o",
    ];
    let mut arguments: Vec<OsString> = options.iter().map(OsString::from).collect();
    arguments.extend([product.clone().into(), house.source("templates.cpp").into()]);
    let name = "c++ compile";
    Ok(Workload {
        name,
        program: program.into(),
        arguments,
        stdin: None,
        variables: Vec::new(),
        product: Some(product),
        absent: None,
    })
}

/// The program with 200 short-lived threads.
pub fn short_threads(house: &House) -> Answer<Workload> {
    of_ours(house, "200 threads", "short_threads")
}

/// Four threads of nothing but malloc and free.
pub fn malloc_only(house: &House) -> Answer<Workload> {
    of_ours(house, "malloc only", "malloc_only")
}

/// A program of `xtask/programs`, without arguments.
fn of_ours(house: &House, name: &'static str, program: &str) -> Answer<Workload> {
    Ok(Workload {
        name,
        program: house.program(program)?.into(),
        arguments: Vec::new(),
        stdin: None,
        variables: Vec::new(),
        product: None,
        absent: None,
    })
}

/// Two git workloads over a small repository that is made first: one with output and many children
/// (a shell, clone, log, fsck), and a plain clone, whose few children all fit the run's files.
pub fn git(work: &Path) -> Answer<[Workload; 2]> {
    let origin = work.join("origin");
    let git = system_program("git")?;
    make_repository(&git, &origin)?;
    let (clone, plain) = (work.join("clone"), work.join("plain"));
    // An alias that starts with `!` runs a shell.
    let alias = format!(
        "alias.work=!git clone --quiet --no-local '{origin}' '{clone}' && git -C '{clone}' log -p --stat && git -C '{clone}' fsck --full",
        clone = clone.display(),
        origin = origin.display()
    );
    let workload = |name, words: &[&str], absent: &Path| Workload {
        name,
        program: git.clone().into(),
        arguments: ["-c", "pack.threads=1"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect(),
        stdin: None,
        variables: git_variables(),
        product: None,
        absent: Some(absent.to_path_buf()),
    };
    let (from, to) = (origin.to_string_lossy(), plain.to_string_lossy());
    Ok([
        workload("git", &["-c", &alias, "work"], &clone),
        workload("git clone", &["clone", "--no-local", &from, &to], &plain),
    ])
}

/// Nothing of the user's configuration and of the time of day.
fn git_variables() -> Vec<(&'static str, OsString)> {
    let date = "2026-01-02T03:04:05Z";
    let variables = [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_DATE", date),
        ("GIT_COMMITTER_DATE", date),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_COMMITTER_NAME", "a"),
        ("GIT_COMMITTER_EMAIL", "a@example.org"),
        ("GIT_PAGER", "cat"),
    ];
    variables
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

fn make_repository(git: &Path, origin: &Path) -> Answer<()> {
    let prepare = |arguments: &[&str]| {
        let mut command = Command::new(git);
        command.envs(git_variables());
        child::must(command.arg("-C").arg(origin).args(arguments))
    };
    fs::create_dir_all(origin).map_err(|e| format!("{}: {e}", origin.display()))?;
    prepare(&["init", "--quiet", "--initial-branch=main"])?;
    for number in 0..12 {
        let file = origin.join(format!("file{}", number % 5));
        let text: String = (0..400)
            .map(|line| format!("line {} of {number}\n", line * (number + 1)))
            .collect();
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        prepare(&["add", "--all"])?;
        prepare(&[
            "commit",
            "--quiet",
            "--message",
            &format!("change {number}"),
        ])?;
    }
    Ok(())
}

/// The SQL script: inserts, updates, joins, groupings and recursive queries.
fn sql() -> String {
    let mut text = String::from(
        "create table t(id integer primary key, a int, b text, c real);\ncreate index ta on t(a);\ncreate table u(k int, v text);\n",
    );
    for i in 0..SQL_STATEMENT_COUNT {
        let statement = match i % 8 {
            0..3 => format!(
                "insert into t(a,b,c) select {i}+value, 'row {i} '||value, value*1.5 from generate_series(1,20);"
            ),
            3 => format!("insert into u values({}, printf('%08d',{i}));", i % 97),
            4 => format!(
                "select count(*), sum(c), group_concat(substr(b,1,5)) from (select * from t where a between {0} and {0}+60 order by b limit 150);",
                i * 7 % 6000
            ),
            5 => format!(
                "select t.a%13, count(*), max(u.v) from t join u on u.k=t.a%97 where t.a>{} group by 1 order by 2 desc, 1 limit 5;",
                i - 5
            ),
            6 => format!(
                "update t set b=b||'x' where id%101={} and length(b)<60;",
                i % 101
            ),
            _ => format!(
                "with recursive f(n,s) as (select 1,'a' union all select n+1,s||hex(n) from f where n<60) select max(length(s)), {i} from f;"
            ),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{statement}");
    }
    text
}
