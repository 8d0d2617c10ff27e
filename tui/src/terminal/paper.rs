//! Where a frame is put together: the backend of the drawing library, writing into memory. It
//! writes nothing where nothing changed, and never asks the terminal anything.

use std::io;

use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::{Cell, CellWidth};
use ratatui::layout::{Position, Rect, Size};

/// A sheet of paper of the terminal's size.
#[derive(Debug)]
pub(crate) struct Paper {
    bytes: Vec<u8>,
    size: Size,
}

impl Paper {
    /// Paper of this size.
    pub(crate) fn new(size: (u16, u16)) -> Self {
        Self {
            bytes: Vec::new(),
            size: size.into(),
        }
    }

    /// The terminal has this size now.
    pub(crate) fn resize(&mut self, size: (u16, u16)) {
        self.size = size.into();
    }

    /// All of it.
    pub(crate) fn area(&self) -> Rect {
        Rect::from((Position::ORIGIN, self.size))
    }

    /// What was written since it was asked last.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The cells with what a wide letter covers before the letter. To some terminals a letter with an
/// emoji's look is one column wide: there what it covers is seen. To the others it would be written
/// over the letter's second half, or behind it.
fn covered_first<'a>(
    content: impl Iterator<Item = (u16, u16, &'a Cell)>,
) -> impl Iterator<Item = (u16, u16, &'a Cell)> {
    let mut content = content.peekable();
    let mut letter = None;
    std::iter::from_fn(move || {
        if let Some(letter) = letter.take() {
            return Some(letter);
        }
        let (x, y, cell) = content.next()?;
        let covers = |next: &(u16, u16, &Cell)| {
            cell.cell_width() > 1 && (next.0, next.1) == (x.saturating_add(1), y)
        };
        let Some(covered) = content.next_if(covers) else {
            return Some((x, y, cell));
        };
        letter = Some((x, y, cell));
        Some(covered)
    })
}

impl Backend for Paper {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut content = covered_first(content).peekable();
        match content.peek() {
            Some(_) => CrosstermBackend::new(&mut self.bytes).draw(content),
            None => Ok(()),
        }
    }

    // The cursor is hidden as long as the terminal is taken.
    fn hide_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, _: P) -> io::Result<()> {
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        CrosstermBackend::new(&mut self.bytes).clear_region(region)
    }

    fn size(&self) -> io::Result<Size> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize {
            columns_rows: self.size,
            pixels: Size::ZERO,
        })
    }

    // A frame goes out whole, when it is done.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wide_letter_covers_is_written_before_it() {
        let area = Rect::new(0, 0, 6, 1);
        let before = ratatui::buffer::Buffer::with_lines(["abcdef"]);
        let mut after = ratatui::buffer::Buffer::empty(area);
        after.set_string(0, 0, "x\u{26a0}\u{fe0f}yz", ratatui::style::Style::new());
        let mut paper = Paper::new((6, 1));
        paper.draw(before.diff_iter(&after)).unwrap();
        let bytes = String::from_utf8(paper.take()).unwrap();
        let written: Vec<&str> = bytes.split("\u{1b}[").collect();
        let expected = ["", "1;1Hx", "1;3H ", "1;2H\u{26a0}\u{fe0f}", "1;4Hyz "];
        assert_eq!(written[..5], expected, "{bytes:?}");
    }
}
