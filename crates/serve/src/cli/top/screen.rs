//! The terminal while it shows frames, and given back as it was.

use std::io::{self, Write};

use crossterm::{
    QueueableCommand,
    cursor::{Hide, MoveTo, Show},
    execute,
    style::Print,
    terminal::{
        self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};

/// The terminal's other screen, without a cursor and with keys as they are pressed. Dropping it, also in a panic, restores what
/// was there.
pub(super) struct Screen;

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self;
        // A panic's message would vanish with this screen; so the screen goes first.
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            report(panic);
        }));
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        // Some terminals do not know their size and say so with zeros.
        let known = terminal::size().ok().filter(|(columns, rows)| *columns > 0 && *rows > 0);
        known.unwrap_or((80, 24))
    }

    /// Writes over what is there, which flickers less than to clear it first.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (row, line) in lines.iter().enumerate() {
            let row = u16::try_from(row).unwrap_or(u16::MAX);
            out.queue(MoveTo(0, row))?.queue(Print(line))?.queue(Clear(ClearType::UntilNewLine))?;
        }
        let end = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        out.queue(MoveTo(0, end))?.queue(Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    // Nothing more can be done for a terminal that does not take this.
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}
