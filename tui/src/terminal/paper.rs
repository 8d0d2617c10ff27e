//! Where a frame is put together: the backend of the drawing library, writing into memory. It
//! writes nothing where nothing changed, and never asks the terminal anything.

use std::io;

use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
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

impl Backend for Paper {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut content = content.peekable();
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
