//! How a command answers: for people, as JSON, or as plain append-only text. A verb hands over an
//! [`Answer`]; it does not know which of the three is written.

pub(crate) mod escape;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod jobs;
pub(crate) mod log;
pub(crate) mod machines;
pub(crate) mod roles;
pub(crate) mod skills;
pub(crate) mod style;
pub(crate) mod table;

use std::io::{self, IsTerminal, Write};

use fleet_contract::time::Time;

use self::style::{ColorChoice, Terminal};

/// What a verb found out.
pub(crate) trait Answer {
    /// As one JSON document on one line, without the newline.
    fn json(&self) -> serde_json::Result<String>;

    /// As text, each line ended.
    fn text(&self, look: &Look) -> String;
}

/// How text is to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Columns there are; none does not shorten anything.
    pub(crate) width: Option<usize>,
    /// Whether colours are on.
    pub(crate) color: bool,
    /// Whether times are written as ages; else as they are.
    pub(crate) ages: bool,
    /// Now, for ages.
    pub(crate) now: Time,
}

impl Look {
    /// For a remark: nothing shortened, no colours.
    pub(crate) fn plain() -> Self {
        Self {
            width: None,
            color: false,
            ages: false,
            now: crate::clock::now(),
        }
    }

    /// A time for a table: its age for people, itself in plain text.
    pub(crate) fn time(&self, time: Time) -> String {
        if self.ages {
            crate::words::ago(self.now, time)
        } else {
            time.to_string()
        }
    }
}

/// Where answers go.
pub(crate) trait Output {
    /// A verb's answer, or one item of an answer that streams.
    fn show(&mut self, answer: &dyn Answer) -> io::Result<()>;

    /// A remark for people on standard error; programs do not get it.
    fn note(&mut self, remark: &str);

    /// Whether answers are JSON.
    fn is_json(&self) -> bool {
        false
    }

    /// Whether answers are text that only grows.
    fn is_plain(&self) -> bool {
        false
    }
}

/// For people: colours, tables as wide as the terminal, ages.
pub(crate) struct Human<W> {
    out: W,
    width: Option<usize>,
    color: bool,
}

/// For people and scripts that want text that only grows: no colours, nothing shortened, times
/// as they are.
pub(crate) struct Plain<W> {
    out: W,
}

/// For programs: one JSON document, or one on each line where it streams.
pub(crate) struct Json<W> {
    out: W,
}

impl<W: Write> Output for Human<W> {
    fn show(&mut self, answer: &dyn Answer) -> io::Result<()> {
        let look = Look {
            width: self.width,
            color: self.color,
            ages: true,
            now: crate::clock::now(),
        };
        self.out.write_all(answer.text(&look).as_bytes())?;
        self.out.flush()
    }

    fn note(&mut self, remark: &str) {
        note(remark);
    }
}

impl<W: Write> Output for Plain<W> {
    fn show(&mut self, answer: &dyn Answer) -> io::Result<()> {
        let look = Look::plain();
        self.out.write_all(answer.text(&look).as_bytes())?;
        self.out.flush()
    }

    fn note(&mut self, remark: &str) {
        note(remark);
    }

    fn is_plain(&self) -> bool {
        true
    }
}

impl<W: Write> Output for Json<W> {
    fn show(&mut self, answer: &dyn Answer) -> io::Result<()> {
        let mut line = answer.json().map_err(io::Error::other)?;
        line.push('\n');
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }

    fn note(&mut self, _: &str) {}

    fn is_json(&self) -> bool {
        true
    }
}

/// A remark for people on standard error.
pub(crate) fn note(remark: &str) {
    // A remark that nobody can read changes nothing.
    let _ = writeln!(io::stderr(), "fleet: {}", escape::one_line(remark));
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// [`Human`].
    Human,
    /// [`Plain`].
    Plain,
    /// [`Json`].
    Json,
}

/// The output on this process's standard output.
pub(crate) fn stdout(
    mode: Mode,
    color: ColorChoice,
    no_color: bool,
    dumb: bool,
) -> Box<dyn Output> {
    let out = io::BufWriter::new(io::stdout());
    match mode {
        Mode::Json => Box::new(Json { out }),
        Mode::Plain => Box::new(Plain { out }),
        Mode::Human => {
            let terminal = io::stdout().is_terminal();
            Box::new(Human {
                out,
                width: Terminal::of(&io::stdout()).width,
                color: color.enabled(terminal, no_color, dumb),
            })
        }
    }
}

/// An answer that is one serializable value and a text made beforehand.
pub(crate) struct Said<T> {
    /// For programs.
    pub(crate) value: T,
    /// For people, lines ended.
    pub(crate) text: String,
}

impl<T: serde::Serialize> Answer for Said<T> {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.value)
    }

    fn text(&self, _: &Look) -> String {
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_output_writes_its_form() {
        let answer = Said {
            value: serde_json::json!({"id": "a"}),
            text: "a\n".to_owned(),
        };
        let mut json = Json { out: Vec::new() };
        json.show(&answer).unwrap();
        json.show(&answer).unwrap();
        assert_eq!(json.out, b"{\"id\":\"a\"}\n{\"id\":\"a\"}\n");
        let mut plain = Plain { out: Vec::new() };
        plain.show(&answer).unwrap();
        assert_eq!(plain.out, b"a\n");
    }
}
