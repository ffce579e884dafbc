//! Tables as kubectl prints them: upper-case headers, columns as wide as their content, three spaces between.

/// Between two columns.
const GAP: usize = 3;

/// Rows of words under headers.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without a row.
    pub fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            header: header.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// A row; an empty word is shown as `<none>`, so that columns can be counted, and what would steer the terminal as
    /// letters.
    pub fn push(&mut self, row: impl IntoIterator<Item = String>) {
        let show = |word: String| {
            if word.is_empty() {
                "<none>".to_owned()
            } else {
                escape_controls(word)
            }
        };
        self.rows.push(row.into_iter().map(show).collect());
    }

    /// The text; no rows give no text, not even headers.
    pub fn render(&self, headers: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let header: Vec<String> = self.header.iter().map(ToString::to_string).collect();
        let lines = headers.then_some(&header).into_iter().chain(&self.rows);
        let widths = self.widths(headers.then_some(&header));
        let mut text = String::new();
        for line in lines {
            for (index, (word, width)) in line.iter().zip(&widths).enumerate() {
                text.push_str(word);
                if index + 1 < line.len() {
                    let fill = width + GAP - word.chars().count();
                    text.extend(std::iter::repeat_n(' ', fill));
                }
            }
            text.push('\n');
        }
        text
    }

    fn widths(&self, header: Option<&Vec<String>>) -> Vec<usize> {
        let mut widths = Vec::new();
        for line in header.into_iter().chain(&self.rows) {
            widths.resize(widths.len().max(line.len()), 0);
            for (width, word) in widths.iter_mut().zip(line) {
                *width = word.chars().count().max(*width);
            }
        }
        widths
    }
}

/// Rows of the maps may be anybody's.
pub fn escape_controls(word: String) -> String {
    if !word.contains(char::is_control) {
        return word;
    }
    let escape = |letter: char| {
        let controls = letter.is_control();
        letter
            .escape_default()
            .filter(move |_| controls)
            .chain((!controls).then_some(letter))
    };
    word.chars().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_not_steer_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.push(words(&["a\u{1b}[31mb\nü"]));
        assert_eq!(table.render(false), "a\\u{1b}[31mb\\nü\n");
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(["NAME", "PORT"]);
        table.push(words(&["a-long-name", "1"]));
        table.push(words(&["b", ""]));
        assert_eq!(
            table.render(true),
            "NAME          PORT\na-long-name   1\nb             <none>\n"
        );
        assert_eq!(table.render(false), "a-long-name   1\nb             <none>\n");
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(Table::new(["NAME"]).render(true), "");
    }
}
