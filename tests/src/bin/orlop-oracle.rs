//! `orlop-oracle SERVER JOURNAL SEED THREADS`: works on a server until that is
//! gone, for the crash tests. Exit 0 when it is gone, 1 when it answered
//! something that must never be, 2 for wrong arguments.

use std::path::Path;
use std::process::ExitCode;

use orlop_tests::oracle;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match args.as_slice() {
        [server, journal, seed, threads] => server
            .parse()
            .ok()
            .zip(seed.parse().ok())
            .zip(threads.parse().ok())
            .map(|((server, seed), threads)| (server, journal, seed, threads)),
        _ => None,
    };
    let Some((server, journal, seed, threads)) = parsed else {
        eprintln!("usage: orlop-oracle SERVER JOURNAL SEED THREADS");
        return ExitCode::from(2);
    };
    if oracle::work(server, Path::new(journal), seed, threads) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
