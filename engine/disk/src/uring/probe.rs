//! Whether the system lets this process use io_uring, tried for real.

use std::io;

use io_uring::{opcode, register};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// Whether io_uring can carry the shared lane; if not, why.
///
/// # Errors
/// The reason, as a part of a sentence.
pub fn ring() -> Result<(), String> {
    let thread = std::thread::Builder::new()
        .name("disk-ring-probe".to_owned())
        .spawn(try_ring);
    let thread = thread.map_err(|error| format!("a thread cannot be started: {error}"))?;
    match thread.join() {
        Ok(result) => result,
        Err(_) => Err("the ring could not be driven".to_owned()),
    }
}

/// Sets up a ring, asks for the operations that are used, and runs one.
fn try_ring() -> Result<(), String> {
    let raw = io_uring::IoUring::new(8).map_err(|error| explain(&error))?;
    let mut offered = register::Probe::new();
    raw.submitter()
        .register_probe(&mut offered)
        .map_err(|error| explain(&error))?;
    let needed = [
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::AsyncCancel::CODE, "cancel"),
    ];
    for (code, name) in needed {
        if !offered.is_supported(code) {
            return Err(format!("the kernel's io_uring has no {name}"));
        }
    }
    drop(raw);
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(8))
        .map_err(|error| explain(&error))?;
    let entry = opcode::Nop::new().build();
    let answer =
        runtime.block_on(async move { UnsubmittedOneshot::new((), Number, entry).submit().await });
    match answer {
        0 => Ok(()),
        number => Err(explain(&io::Error::from_raw_os_error(
            number.saturating_neg(),
        ))),
    }
}

struct Number;

impl OneshotOutputTransform for Number {
    type Output = i32;
    type StoredData = ();

    fn transform_oneshot_output(self, (): (), entry: io_uring::cqueue::Entry) -> i32 {
        entry.result()
    }
}

fn explain(error: &io::Error) -> String {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            format!("not permitted here, by seccomp or kernel.io_uring_disabled ({error})")
        }
        Some(Errno::NOSYS) => format!("this kernel has no io_uring ({error})"),
        Some(Errno::NOMEM) => format!("the limit of locked memory is too low ({error})"),
        _ => error.to_string(),
    }
}
