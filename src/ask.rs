//! Questions to a person. Only on a terminal; elsewhere `--yes` is the answer.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Whether there is a person to ask.
pub(crate) fn possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question that is answered by yes or no; no answer is no.
pub(crate) async fn yes(question: &str) -> Result<bool, Failure> {
    if !possible() {
        return Err(
            Failure::usage(format!("{question} there is no terminal to ask on"))
                .next("the same with --yes"),
        );
    }
    let answer = line(&format!("{question} [y/N] ")).await;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Asks and reads one line; empty where there is none. Dropped safely: the thread that reads is
/// left behind and ends with the process.
pub(crate) async fn line(question: &str) -> String {
    // Nobody sees the question if this fails, and then nobody answers.
    let _ = write!(io::stderr(), "{question}");
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    read.await.ok().and_then(Result::ok).unwrap_or_default()
}
