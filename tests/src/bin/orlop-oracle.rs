//! `orlop-oracle SERVER JOURNAL SEED THREADS [COUNT]`: works on a server until
//! that is gone, for the crash tests; with a count, pushes so many small blobs
//! and ends. Exit 0 when that is done or the server is gone, 1 when it answered
//! something that must never be, 2 for wrong arguments.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use orlop_tests::oracle;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(1),
        None => {
            eprintln!("usage: orlop-oracle SERVER JOURNAL SEED THREADS [COUNT]");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Option<bool> {
    let (server, journal, seed, threads, count) = match args {
        [server, journal, seed, threads] => (server, journal, seed, threads, None),
        [server, journal, seed, threads, count] => (server, journal, seed, threads, Some(count)),
        _ => return None,
    };
    let server: SocketAddr = server.parse().ok()?;
    let (seed, threads) = (seed.parse().ok()?, threads.parse().ok()?);
    let journal = Path::new(journal);
    Some(match count {
        None => oracle::work(server, journal, seed, threads),
        Some(count) => oracle::fill(server, journal, seed, threads, count.parse().ok()?),
    })
}
