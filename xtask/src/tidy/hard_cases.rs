//! The table of hard cases in docs/testing.md: each row has a test that is called as it is, and each test that is named exists.

use super::Finding;
use crate::source::File;

const PAGE: &str = "docs/testing.md";
/// What begins the table's part of the page.
const HEADING: &str = "## Hard cases";
/// Rows by their letter: packets, nonsense and what the ingress meets.
const ROWS: [(char, usize); 3] = [('p', 16), ('n', 24), ('l', 16)];
/// Where a test may be a file.
const FOLDERS: [&str; 2] = ["tests/packet/corpus/", "tests/scenario/cases/"];

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return Vec::new();
    };
    let lines = (1..).zip(page.text.lines());
    let table = lines.skip_while(|(_, line)| *line != HEADING).skip(1);
    let table = table.take_while(|(_, line)| !line.starts_with("## "));
    let rows: Vec<(usize, &str)> = table.filter(|(_, line)| line.starts_with("| ")).collect();
    let mut findings: Vec<Finding> = rows
        .iter()
        .filter(|(_, line)| !line.starts_with("| row |"))
        .flat_map(|(at, line)| {
            let missing = tests(line).filter(|test| !exists(test, files));
            missing.map(|test| Finding::new(page, *at, format!("there is no test {test}")))
        })
        .collect();
    for row in ROWS
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |number| format!("{letter}{number}")))
    {
        let line = rows
            .iter()
            .find(|(_, line)| line.starts_with(&format!("| {row} |")));
        let Some((at, line)) = line else {
            findings.push(Finding::new(
                page,
                0,
                format!("no row {row} among the hard cases"),
            ));
            continue;
        };
        if !tests(line).any(|test| is_called(test, &row)) {
            findings.push(Finding::new(page, *at, format!("no test is called {row}_…")));
        }
    }
    findings
}

/// What stands in backticks in the last column.
fn tests(line: &str) -> impl Iterator<Item = &str> {
    let column = line.trim_end_matches([' ', '|']).rsplit(" | ").next();
    column.unwrap_or_default().split('`').skip(1).step_by(2)
}

fn is_called(test: &str, row: &str) -> bool {
    let rest = test.strip_prefix(row);
    rest.is_some_and(|rest| rest.starts_with(['_', '-']))
}

/// Whether it is a script, a scenario or a function.
fn exists(test: &str, files: &[File]) -> bool {
    let function = format!("fn {test}(");
    files.iter().any(|file| {
        let is_file = |folder: &&str| file.path == format!("{folder}{test}.txt");
        FOLDERS.iter().any(is_file) || (file.is_rust() && file.text.contains(&function))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_test_and_tests_without_a_file_are_found() {
        let lines = |from: usize, to: usize, line: &dyn Fn(usize) -> String| -> String {
            (from..=to).map(line).collect::<Vec<_>>().concat()
        };
        let mut table = lines(2, 16, &|row| format!("| p{row} | what | `p{row}_it` |\n"));
        table += &lines(1, 16, &|row| format!("| l{row} | what | `l{row}_it` |\n"));
        table += &lines(1, 24, &|row| format!("| n{row} | what `x` | `n{row}-it` |\n"));
        let page = |first: &str| {
            File::new(
                PAGE,
                &format!("{HEADING}\n\n{first}{table}\n## Next\n| p1 | no | `x` |\n"),
            )
        };
        let functions = lines(1, 16, &|row| {
            format!("fn p{row}_it() {{}}\nfn l{row}_it() {{}}\n")
        });
        let mut files = vec![
            page("| p1 | what | `p1_it`, more |\n"),
            File::new("a.rs", &functions),
        ];
        files.extend((1..=24).map(|row| File::new(&format!("tests/scenario/cases/n{row}-it.txt"), "")));
        let said = |files: &[File]| -> Vec<String> {
            check(files).into_iter().map(|finding| finding.what).collect()
        };
        assert_eq!(said(&files), Vec::<String>::new());
        for (first, wanted) in [
            ("", "no row p1 among the hard cases"),
            ("| p1 | what | `p10_it` |\n", "no test is called p1_…"),
            ("| p1 | what | `p1_it`, `p1_gone` |\n", "there is no test p1_gone"),
        ] {
            files.splice(..1, [page(first)]);
            assert_eq!(said(&files), [wanted]);
        }
    }
}
