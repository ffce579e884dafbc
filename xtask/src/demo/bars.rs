//! Bars: how many connections each backend got.

use super::screen::{Screen, Style};

/// One bar.
pub(super) struct Bar {
    /// What it stands for.
    pub(super) name: String,
    /// Its length.
    pub(super) count: u64,
    /// What is said after the number.
    pub(super) note: String,
}

/// The bars as lines, `full` being the count of a bar of full length.
pub(super) fn bars(screen: &Screen, bars: &[Bar], full: u64) -> Vec<String> {
    let width = screen.width().saturating_sub(40).clamp(20, 48);
    bars.iter()
        .enumerate()
        .map(|(number, bar)| {
            let drawn = draw(bar.count, full, width, screen.is_terminal());
            let drawn = screen.paint(Style::Backend(number), &drawn);
            format!("   {:<6} {drawn} {:>5}  {}", bar.name, bar.count, bar.note)
        })
        .collect()
}

/// A bar of `count / full` of the width: with eighths of a character on a terminal, with `#` in a pipe.
fn draw(count: u64, full: u64, width: usize, fine: bool) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let columns = u64::try_from(width).unwrap_or(0);
    let eighths = (count * columns * 8)
        .checked_div(full)
        .unwrap_or(0)
        .min(columns * 8);
    let whole = usize::try_from(eighths / 8).unwrap_or(0);
    let bar = if fine {
        let rest = usize::try_from(eighths % 8).unwrap_or(0);
        format!("{}{}", "█".repeat(whole), EIGHTHS.get(rest).unwrap_or(&""))
    } else {
        "#".repeat(whole)
    };
    format!("{bar:<width$}")
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn a_bar_has_the_length_of_its_share() {
        assert_eq!(draw(500, 1000, 8, false), "####    ");
        assert_eq!(draw(1000, 1000, 4, true), "████");
        assert_eq!(draw(1, 16, 4, true), "▎   ");
        assert_eq!(draw(9, 0, 3, true), "   ");
        assert_eq!(draw(2000, 1000, 4, true), "████");
    }
}
