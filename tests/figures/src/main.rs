//! `orlop-figures FILE`: prints what the durability suites reached, and fails
//! when a figure is missing or too small for the size in `ORLOP_SIZE`.

use std::process::ExitCode;

use orlop_figures::{Reached, SIZE, size, sum};

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: {SIZE}=commit|release orlop-figures FILE");
        return ExitCode::from(2);
    };
    let lines = match std::fs::read_to_string(&file) {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("orlop-figures: cannot read {file}: {error}");
            return ExitCode::from(2);
        }
    };
    match sum(&lines, size()) {
        Ok(all) => report(&all),
        Err(error) => {
            eprintln!("orlop-figures: {file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn report(all: &[Reached]) -> ExitCode {
    println!("{:<36} {:>11} {:>11}  seeds", "figure", "reached", "wanted");
    for reached in all {
        let mark = if reached.enough() { "" } else { "  TOO FEW" };
        let Reached {
            name,
            count,
            wanted,
            seeds,
        } = reached;
        println!(
            "{name:<36} {count:>11} {wanted:>11}  {}{mark}",
            seeds.join(", ")
        );
    }
    println!("a suite fails on the first acknowledged write lost, wrong byte served or panic;");
    println!("`./x figures` and `./x soak` print this table only when none has failed");
    if all.iter().all(Reached::enough) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
