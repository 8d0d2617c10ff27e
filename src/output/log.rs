//! A job's output on this process's own streams: bytes as they are into a pipe or file, made safe
//! on a terminal.

use std::io::{self, IsTerminal, Write};

use fleet_contract::outcome::OutputStream;

use super::escape::Escaper;

/// Writes a job's two output streams.
pub(crate) struct JobOutput<O, E> {
    stdout: Side<O>,
    stderr: Side<E>,
}

struct Side<W> {
    out: W,
    /// None passes everything.
    escaper: Option<Escaper>,
}

impl<W: Write> Side<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.escaper {
            None => self.out.write_all(bytes),
            Some(escaper) => {
                let mut safe = Vec::with_capacity(bytes.len());
                escaper.push(bytes, &mut safe);
                self.out.write_all(&safe)
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(escaper) = &mut self.escaper {
            let mut safe = Vec::new();
            escaper.finish(&mut safe);
            self.out.write_all(&safe)?;
        }
        self.out.flush()
    }
}

impl JobOutput<io::BufWriter<io::Stdout>, io::Stderr> {
    /// On this process's streams; `raw` passes everything to a terminal too.
    pub(crate) fn here(raw: bool) -> Self {
        Self::new(
            io::BufWriter::new(io::stdout()),
            io::stdout().is_terminal() && !raw,
            io::stderr(),
            io::stderr().is_terminal() && !raw,
        )
    }
}

impl<O: Write, E: Write> JobOutput<O, E> {
    fn new(stdout: O, escape_stdout: bool, stderr: E, escape_stderr: bool) -> Self {
        Self {
            stdout: Side {
                out: stdout,
                escaper: escape_stdout.then(Escaper::default),
            },
            stderr: Side {
                out: stderr,
                escaper: escape_stderr.then(Escaper::default),
            },
        }
    }

    /// Writes what a job wrote. Not flushed: several chunks make one write.
    pub(crate) fn write(&mut self, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            OutputStream::Stdout => self.stdout.write(bytes),
            OutputStream::Stderr => {
                // What came before must be seen before it.
                self.stdout.out.flush()?;
                self.stderr.write(bytes)
            }
        }
    }

    /// Shows everything so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.out.flush()
    }

    /// The output has ended.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.stdout.finish()?;
        self.stderr.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_the_bytes_and_a_terminal_safe_ones() {
        let bytes = b"\x1b[2J\xff\0ok\n";
        let mut log = JobOutput::new(Vec::new(), false, Vec::new(), true);
        log.write(OutputStream::Stdout, bytes).unwrap();
        log.write(OutputStream::Stderr, bytes).unwrap();
        log.finish().unwrap();
        assert_eq!(log.stdout.out, bytes);
        assert_eq!(log.stderr.out, b"\\x1b[2J\\xff\\x00ok\n");
    }
}
