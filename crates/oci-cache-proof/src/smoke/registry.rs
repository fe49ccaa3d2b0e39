//! A `docker-registry` for the exercise.
//!
//! Guarantees: it listens on a free loopback port, without authentication. Its storage and configuration are
//! in the given directory. Dropping it ends this process and no other.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::smoke::distance::Distance;

/// The number of ports to try, in case another program takes the free one.
const ATTEMPTS: u32 = 5;
/// How long the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running registry.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Child,
    port: u16,
    distance: Distance,
}

/// How far away the registry seems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On this machine.
    Near,
    /// As if over a network.
    Far,
}

impl Registry {
    /// Starts a registry with its files in `directory`, and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not answer.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::start_once(directory) {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                started => return started,
            }
        }
    }

    /// The reference of an image, as skopeo writes it.
    pub(crate) fn reference(&self, image: &str, way: Way) -> String {
        let port = match way {
            Way::Near => self.port,
            Way::Far => self.distance.port(),
        };
        format!("docker://127.0.0.1:{port}/smoke/{image}:latest")
    }

    /// The URL of an image's blobs.
    pub(crate) fn blobs_url(&self, image: &str) -> String {
        format!("http://127.0.0.1:{}/v2/smoke/{image}/blobs", self.port)
    }

    fn start_once(directory: &Path) -> anyhow::Result<Self> {
        let port = free_port().context("find a free loopback port")?;
        let configuration = directory.join("registry.yml");
        fs::write(&configuration, configuration_for(port, &directory.join("registry")))
            .with_context(|| format!("write {}", configuration.display()))?;
        let log_path = directory.join("registry.log");
        let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
        let distance = Distance::to(port).context("open a loopback port")?;
        // If this process is killed, the registry ends too.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start docker-registry")?;
        let mut registry = Self { process, port, distance };
        registry.wait_until_it_answers().with_context(|| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            format!("docker-registry on port {port} does not work; its log ends with: {}", last_line(&log))
        })?;
        Ok(registry)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let answer = ask(self.port);
            // Check this after the answer: if another program has the port, the answer is that program's.
            if let Some(status) = self.process.try_wait().context("check docker-registry")? {
                bail!("it exited: {status}");
            }
            if answer.is_ok_and(|answer| answer.contains("Docker-Distribution-Api-Version")) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("it did not answer within {PATIENCE:?}")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // If it has ended already, both calls fail and nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that is free at the moment.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn configuration_for(port: u16, storage: &Path) -> String {
    let storage = serde_json::Value::from(storage.to_string_lossy());
    format!(
        "version: 0.1\n\
         log: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {storage}}}, cache: {{blobdescriptor: inmemory}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\"}}\n"
    )
}

/// Asks for the API version, as every client does first.
fn ask(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn last_line(log: &str) -> &str {
    log.lines().last().unwrap_or("(empty)")
}
