//! Throughput by iperf3(1): over the loopback device outside and inside, and
//! over the bridge.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::figures::Figures;
use super::peers::IMAGE;
use super::session::Session;
use super::tools::{last_words, output};
use check::sys::bind_child;

/// The subnet of the bridge, and the address of the container in it.
const SUBNET: &str = "10.214.0.0/24";
const ADDRESS: &str = "10.214.0.2";

/// The time limit for the first answer of a server.
const LIMIT: Duration = Duration::from_secs(10);

/// A measurement: its name, the figures outside, the figures inside.
pub type Measured = (String, Figures, Figures);

/// Measures in a network namespace of this thread's own, which has no link to
/// the host's network.
pub fn measure(session: &Session, iperf3: &Path, rounds: u32) -> Result<Vec<Measured>> {
    session.scratch.own_network()?;
    let (mut outside, mut inside, mut bridge) = (Vec::new(), Vec::new(), Vec::new());
    let program = iperf3.display().to_string();
    for _ in 0..rounds {
        session.scratch.stop.check()?;
        outside.push(rate(&["sh", "-c", &both(&program)].map(str::to_owned))?);
        let mut words = container(session, &["--network", "none"]);
        words.extend(["sh".to_owned(), "-c".to_owned(), both(&program)]);
        inside.push(rate(&words)?);
        bridge.push(across(session, &program)?);
    }
    let figures = |sample: &Vec<f64>| {
        let key = ("throughput".to_owned(), "Gbit/s".to_owned());
        Figures::from([(key, sample.clone())])
    };
    Ok(vec![
        ("loopback".to_owned(), figures(&outside), figures(&inside)),
        (
            "bridge, against loopback".to_owned(),
            figures(&outside),
            figures(&bridge),
        ),
    ])
}

/// A script that runs a server for one client, and the client. A refused client
/// says so in its report, not by its exit status.
fn both(program: &str) -> String {
    format!(
        "{program} -s -1 >/dev/null & n=0\n\
         until report=$({}); case $report in *'\"error\"'*) false ;; esac; do\n\
         n=$((n+1)); [ $n -lt 50 ] || exit 1; sleep 0.1\n\
         done\necho \"$report\"",
        client(program, "127.0.0.1")
    )
}

fn client(program: &str, address: &str) -> String {
    format!("{program} -c {address} -t 1 -J")
}

/// The command line of a drydock container with the host's programs, iperf3
/// among them.
fn container(session: &Session, options: &[&str]) -> Vec<String> {
    let mut words = session.drydock(&["run", "--rm"]);
    words.extend(["--cgroup-parent".to_owned(), session.scratch.group()]);
    words.extend(options.iter().map(|&word| word.to_owned()));
    for dir in ["/usr", "/lib", "/lib64"] {
        if Path::new(dir).exists() {
            words.extend(["-v".to_owned(), format!("{dir}:{dir}:ro")]);
        }
    }
    words.push(IMAGE.to_owned());
    words
}

/// Measures from here to a container on the bridge.
fn across(session: &Session, program: &str) -> Result<f64> {
    let options = ["--network", "bridge", "--subnet", SUBNET, "--ip", ADDRESS];
    let mut words = container(session, &options);
    words.extend([program, "-s", "-1"].map(str::to_owned));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("DRYDOCK_STATE", session.scratch.path("net"));
    bind_child(&mut command, Vec::new(), Signal::SIGTERM);
    let mut server = command.spawn().context("run drydock")?;
    let end = Instant::now() + LIMIT;
    let line = client(program, ADDRESS);
    let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let measured = loop {
        let measured = rate(&argv);
        if measured.is_ok() || Instant::now() > end {
            break measured;
        }
        if server.try_wait().context("wait for the server")?.is_some() {
            let output = server.wait_with_output().context("wait for the server")?;
            bail!("the server on the bridge: {}", last_words(&output.stderr));
        }
        sleep(Duration::from_millis(100));
    };
    if measured.is_err() {
        server.kill().context("kill the server")?;
    }
    server.wait().context("wait for the server")?;
    measured
}

/// Runs a client and returns the rate that it reports, in Gbit/s.
fn rate(argv: &[String]) -> Result<f64> {
    reported(&output(argv).context("iperf3")?)
}

/// The rate in a client's report, in Gbit/s.
fn reported(json: &[u8]) -> Result<f64> {
    let report: Value = serde_json::from_slice(json).context("parse the report of iperf3")?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.with_context(|| format!("iperf3: {}", report["error"]))?;
    Ok(bits / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_rate_or_an_error() {
        let json = br#"{"end": {"sum_received": {"bits_per_second": 2.5e9}}}"#;
        assert_eq!(reported(json).unwrap(), 2.5);
        let error = reported(br#"{"error": "refused"}"#).unwrap_err();
        assert!(error.to_string().contains("refused"));
        assert!(reported(b"").is_err());
    }
}
