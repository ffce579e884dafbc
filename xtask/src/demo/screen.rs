//! What people see: colours and lines that redraw themselves on a terminal, plain text in a pipe.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use anyhow::{Error, Result};
use rustix::termios;
use weir_lab::{clock, is_interrupted};

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy)]
pub(super) enum Style {
    /// Headings.
    Bold,
    /// What is there but not the point.
    Quiet,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// A backend's colour, by its number.
    Backend(usize),
}

/// Standard output.
pub(super) struct Screen {
    terminal: bool,
    colours: bool,
    width: usize,
    /// Lines of the block that the next redraw replaces.
    live: usize,
}

/// Narrower than this, lines would wrap, and redrawing them would smear.
const NARROWEST: usize = 78;

impl Screen {
    pub(super) fn new() -> Self {
        let stdout = std::io::stdout();
        // A terminal that does not know its size says 0.
        let width = termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { 100 } else { width };
        let smart = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let terminal = stdout.is_terminal() && smart && width >= NARROWEST;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            terminal,
            colours: terminal && !no_color,
            width,
            live: 0,
        }
    }

    /// Whether a person watches.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns that may be used.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The line, cut where a terminal would wrap it after `indent` columns; whole in a pipe.
    pub(super) fn fit(&self, line: &str, indent: usize) -> String {
        let room = self.width.saturating_sub(indent + 2);
        if !self.terminal || line.chars().count() <= room {
            return line.to_owned();
        }
        let start: String = line.chars().take(room).collect();
        format!("{start}…")
    }

    /// The text in its colour.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Quiet => "2",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Backend(number) => match number % 3 {
                0 => "36",
                1 => "33",
                _ => "35",
            },
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A tick or a cross.
    pub(super) fn mark(&self, good: bool) -> String {
        match (good, self.terminal) {
            (true, true) => self.paint(Style::Good, "✔"),
            (false, true) => self.paint(Style::Bad, "✘"),
            (true, false) => "ok".to_owned(),
            (false, false) => "WRONG".to_owned(),
        }
    }

    /// The first line of all.
    pub(super) fn title(&mut self, text: &str) {
        self.blank();
        let text = self.paint(Style::Bold, text);
        self.line(&text);
        self.blank();
    }

    /// The heading of a scene, and a sentence about what happens in the machine.
    pub(super) fn scene(&mut self, number: usize, heading: &str, story: &str) {
        self.blank();
        let heading = self.paint(Style::Bold, &format!("{number}. {heading}"));
        self.line(&heading);
        let story = self.paint(Style::Quiet, story);
        self.line(&format!("   {story}"));
    }

    /// A line that stays.
    pub(super) fn line(&mut self, text: &str) {
        self.erase();
        put(&format!(" {text}\n"));
    }

    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.erase();
        put("\n");
    }

    /// Lines that the next call replaces; nothing in a pipe.
    pub(super) fn live(&mut self, lines: &[String]) {
        if !self.terminal {
            return;
        }
        // In one write, so that nothing flickers.
        let mut text = self.erasure();
        for line in lines {
            let _ = writeln!(text, " {line}");
        }
        put(&text);
        self.live = lines.len();
    }

    /// Says how a piece of work goes: its name at once, and at its end how long it took.
    pub(super) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = clock::now();
        self.live(&[format!("· {name}")]);
        let result = work();
        self.done(name, result.is_ok(), start.elapsed());
        result
    }

    /// The last word about a piece of work.
    pub(super) fn done(&mut self, name: &str, good: bool, took: Duration) {
        if is_interrupted() {
            return;
        }
        let mark = self.mark(good);
        let took = self.paint(Style::Quiet, &format!("{:.1} s", took.as_secs_f64()));
        self.line(&format!("{mark} {name:<52} {took}"));
    }

    /// Tells of an error that does not end the program yet.
    pub(super) fn failure(&mut self, error: Option<&Error>) {
        if let Some(error) = error {
            let text = self.paint(Style::Bad, &format!("the demo stopped: {error:#}"));
            self.line(&text);
        }
    }

    fn erase(&mut self) {
        put(&self.erasure());
        self.live = 0;
    }

    /// Goes up over the live lines, and clears to the end of the screen.
    fn erasure(&self) -> String {
        match self.live {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

/// Writes at once. A reader that went away is no reason to stop before the clean-up.
fn put(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}
