//! Runs a target over files: `orlop-fuzz TARGET FILE…`. Without arguments it
//! lists the targets; `orlop-fuzz --seeds` writes first inputs into the corpus.
#![expect(
    clippy::print_stdout,
    reason = "a program for people who fix what a fuzzer found"
)]

use std::error::Error;

use orlop_fuzz::{ALL, corpus, seeds, target};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        None => {
            for target in ALL {
                println!("{}", target.name);
            }
        }
        Some("--seeds") => {
            for target in ALL {
                let folder = corpus::folder(target.name);
                std::fs::create_dir_all(&folder)?;
                for (at, seed) in seeds::of(target.name).iter().enumerate() {
                    std::fs::write(folder.join(format!("seed-{at:02}")), seed)?;
                }
            }
        }
        Some(name) => {
            let target = target(name).ok_or_else(|| format!("there is no target {name}"))?;
            for file in words {
                let input = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
                (target.run)(&input);
                println!("{file}: holds");
            }
        }
    }
    Ok(())
}
