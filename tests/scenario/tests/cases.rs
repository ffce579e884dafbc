//! Every scenario file on the fake kernel: as it is, and with each single step failing once.
//!
//! `WEIR_BLESS=1` writes what is found into the files; read the difference before you commit it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use weir_scenario::{Case, FakeKernel, Section, files, run, run_with};

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = files()
        .iter()
        .map(|path| Case::read(path).unwrap_or_else(|error| panic!("{error}")))
        .collect();
    assert!(cases.len() >= 25, "only {} scenario files", cases.len());
    cases
}

#[test]
fn every_case_holds() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut kernel = FakeKernel::new(case.limits);
        if std::env::var_os("WEIR_BLESS").is_some() {
            bless(&case, &mut kernel);
        } else if let Err(failure) = run(&case, &mut kernel) {
            wrong.push(failure.to_string());
        }
        wrong.extend(
            kernel
                .broken
                .iter()
                .chain(&kernel.forbidden)
                .map(|what| format!("{}: {what}", case.path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_case_holds_when_any_one_step_fails_once() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut kernel = FakeKernel::new(case.limits);
        let _ = run(&case, &mut kernel);
        // Cases with hundreds of equal steps do not get better by failing each of them.
        let stride = kernel.tried.div_ceil(400).max(1);
        for failing in (0..kernel.tried).step_by(stride) {
            let mut kernel = FakeKernel::new(case.limits);
            kernel.failing = vec![failing];
            if let Err(failure) = run(&case, &mut kernel) {
                wrong.push(format!("with step {failing} failing: {failure}"));
            }
            wrong.extend(
                kernel
                    .broken
                    .iter()
                    .chain(&kernel.forbidden)
                    .map(|what| format!("{}: step {failing}: {what}", case.path.display())),
            );
        }
    }
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_file_says_something_else() {
    let mut sentences: Vec<String> = cases().into_iter().map(|case| case.sentence).collect();
    let count = sentences.len();
    sentences.sort();
    sentences.dedup();
    assert_eq!(sentences.len(), count);
}

/// Writes what is found into the file.
fn bless(case: &Case, kernel: &mut FakeKernel) {
    let mut found = Vec::new();
    run_with(case, kernel, &mut |one| {
        found.push(one);
        Ok(())
    })
    .unwrap_or_else(|failure| panic!("{failure}"));
    let text = std::fs::read_to_string(&case.path).unwrap();
    let mut blessed = String::new();
    let mut skipping = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("--- ") {
            skipping = false;
        }
        if !skipping {
            blessed.push_str(line);
            blessed.push('\n');
        }
        let position = case.sections.iter().position(|(at, section)| {
            *at == number && !matches!(section, Section::Then(_) | Section::Packets(_))
        });
        let Some(position) = position else { continue };
        skipping = true;
        for one in found
            .iter()
            .filter(|one| one.section == position && !one.text.is_empty())
        {
            if one.what == "problems" && matches!(case.sections[position].1, Section::Rows(_)) {
                blessed.push_str("--- problems\n");
            }
            blessed.push_str(&one.text);
            blessed.push('\n');
        }
    }
    write(&case.path, &blessed);
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
