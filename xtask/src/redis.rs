//! The redis workload: a server, a fixed number of requests, and the server's own CPU.
//!
//! Only the server process is measured (`/proc/PID/stat`): the benchmark client is not recorded.

use crate::Answer;
use crate::child;
use crate::house::system_program;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start or to end before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a served benchmark came to.
pub struct Served {
    /// User and system CPU of the server process.
    pub cpu_seconds: f64,
    /// How many keys it held after the last request.
    pub keys: String,
    /// How the outermost command (the recorder, where there is one) ended.
    pub status: ExitStatus,
}

/// Starts `prefix... redis-server`, sends `request_count` requests of each kind, and shuts it down.
pub fn serve(prefix: &[OsString], work: &Path, request_count: usize) -> Answer<Served> {
    let socket = work.join("redis.sock");
    let _ = fs::remove_file(&socket);
    let mut words: Vec<OsString> = prefix.to_vec();
    words.push(system_program("redis-server")?.into());
    for option in [
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--unixsocket",
    ] {
        words.push(option.into());
    }
    words.push(socket.clone().into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .current_dir(work)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = command.spawn().map_err(|e| child::cannot(&command, &e))?;
    let measured = measure(&socket, request_count);
    if measured.is_err() {
        let _ = server.kill();
    }
    let status = end(&mut server)?;
    let (cpu_seconds, keys) = measured?;
    Ok(Served {
        cpu_seconds,
        keys,
        status,
    })
}

fn measure(socket: &Path, request_count: usize) -> Answer<(f64, String)> {
    let started = Instant::now();
    let pid = loop {
        if let Some(pid) = info(socket, "server", "process_id:") {
            break pid;
        }
        if started.elapsed() > PATIENCE {
            return Err("redis-server did not answer".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut benchmark = Command::new(system_program("redis-benchmark")?);
    benchmark
        .arg("-s")
        .arg(socket)
        .args(["-q", "-c", "20", "-P", "8", "-r", "10000", "-d", "100"]);
    benchmark
        .args(["-t", "set,get,lpush,lpop,sadd,hset,zadd", "-n"])
        .arg(request_count.to_string());
    child::must(&mut benchmark)?;
    let cpu_seconds = process_cpu_seconds(&pid)?;
    let keys = info(socket, "keyspace", "db0:").unwrap_or_default();
    let _ = client(socket, &["shutdown", "nosave"]);
    Ok((
        cpu_seconds,
        keys.split(',').next().unwrap_or_default().to_owned(),
    ))
}

fn client(socket: &Path, arguments: &[&str]) -> Answer<String> {
    let mut client = Command::new(system_program("redis-cli")?);
    let ran = child::must(client.arg("-s").arg(socket).args(arguments))?;
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

fn info(socket: &Path, section: &str, field: &str) -> Option<String> {
    let text = client(socket, &["info", section]).ok()?;
    text.lines()
        .find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
}

fn process_cpu_seconds(pid: &str) -> Answer<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|e| format!("/proc/{pid}/stat: {e}"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    // Fields 14 and 15 of proc(5); the split starts at field 3. The kernel counts 100 a second.
    let (user, system) = (ticks(11), ticks(12));
    Ok((user.ok_or("no utime")? + system.ok_or("no stime")?) / 100.0)
}

fn end(server: &mut Child) -> Answer<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = server
            .try_wait()
            .map_err(|e| format!("redis-server: {e}"))?
        {
            return Ok(status);
        }
        if started.elapsed() > PATIENCE {
            let _ = server.kill();
            return Err("redis-server did not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
