//! A `redis-server` of a test's own: on a free port of the loopback, with a folder of its own, ended
//! by its process id.

#![allow(dead_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For one question to a server that runs.
const SOON: Duration = Duration::from_millis(500);

pub struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    pub fn start() -> Server {
        Server::with(&["--save", "", "--appendonly", "no"])
    }

    pub fn with(arguments: &[&str]) -> Server {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("budget-pool-redis-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder in the temporary one");
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        // Another program may take the port between the look and the start: then another one.
        for _attempt in 0..20 {
            let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = probe.local_addr().expect("it is bound").port();
            drop(probe);
            if let Some(child) = spawn(port, &folder, &arguments) {
                return Server { child, port, folder, arguments };
            }
        }
        panic!("redis-server does not start: see its log in {}", folder.display());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("it is a url")
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Has the server stand still: it accepts calls, and answers none.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.expect("the system has `kill`").success());
    }

    /// Starts it again, with what its folder has, and waits until that is loaded.
    pub fn restart(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        let wait = || {
            assert!(Instant::now() < end, "redis-server does not start again");
            std::thread::sleep(Duration::from_millis(50));
        };
        self.child = loop {
            match spawn(self.port, &self.folder, &self.arguments) {
                Some(child) => break child,
                None => wait(),
            }
        };
        while !self.is_loaded() {
            wait();
        }
    }

    fn is_loaded(&self) -> bool {
        let answer = self
            .client()
            .get_connection()
            .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
        answer.is_ok()
    }

    /// One command, by `redis-cli`'s own protocol and no client of this package.
    pub fn command(&self, words: &[&str]) -> redis::Value {
        let mut connection = self.client().get_connection().expect("it runs");
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut connection).expect("the server does it")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The server under test: `redis-server`, or what `BUDGET_POOL_REDIS_SERVER` names, such as
/// `valkey-server`.
pub fn program() -> String {
    std::env::var("BUDGET_POOL_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn spawn(port: u16, folder: &Path, arguments: &[String]) -> Option<Child> {
    let program = program();
    let mut child = match Command::new(&program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(folder)
        .args(["--logfile", "redis.log", "--enable-debug-command", "yes"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => panic!(
            "these tests need `{program}` on the PATH ({error}): `apt-get install redis-server`, or `brew install redis`"
        ),
    };
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if child.try_wait().expect("it is a child").is_some() {
            return None;
        }
        if process_at(port) == Some(child.id()) {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// The process that answers at this port. Another test's server may have taken it, or what connects
/// may meet itself there while nobody listens: both would be gone at the next call.
pub fn process_at(port: u16) -> Option<u32> {
    let mut connection =
        redis::Client::open(("127.0.0.1", port)).ok()?.get_connection_with_timeout(SOON).ok()?;
    connection.set_read_timeout(Some(SOON)).ok()?;
    let info: redis::InfoDict = redis::cmd("INFO").arg("server").query(&mut connection).ok()?;
    info.get("process_id")
}
