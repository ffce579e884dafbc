//! What h2spec asks of an HTTP/2 server, all of it, strict cases too, over both doors.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use weir_ingress_trial::h2spec::{self, Case};
use weir_ingress_trial::objects::{class, ingress, service, slice};
use weir_ingress_trial::pods::Pod;
use weir_ingress_trial::{Ingress, trial};

/// Cases in h2spec 2.2.1; fewer were not all.
const ALL: usize = 140;

/// A door in clear text takes what does not begin as HTTP/2 for HTTP/1.1, and refuses it in that: h2spec wants to hear nothing,
/// or GOAWAY (RFC 9113, 3.4: it may be omitted).
const OTHERWISE: &str = "http2/3.5: Sends invalid connection preface";

/// Takes a moment: a stream that is to be broken must not have been answered already.
const PATH: &str = "/slow/50";

/// The program, as `./x test ingress` has built it; without Go it is not there.
fn program() -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os("WEIR_H2SPEC") {
        return Ok(Some(path.into()));
    }
    let required = std::env::var("REQUIRE_ROOT").is_ok_and(|value| value == "1");
    ensure!(
        !required,
        "REQUIRE_ROOT=1, but there is no WEIR_H2SPEC: `./x test ingress` builds it"
    );
    // Straight to the file: the harness keeps what `eprintln!` says to itself.
    let _ = std::io::stderr().write_all(b"SKIP: no WEIR_H2SPEC: `./x test ingress` builds it, with Go\n");
    Ok(None)
}

fn conforms(name: &str, tls: bool) -> Result<()> {
    let Some(program) = program()? else {
        return Ok(());
    };
    trial(name, async |edge| {
        let pod = Pod::start(1).await?;
        // It asks for the address as the host.
        let mut any = ingress("any", "", &[("/", "web")]);
        let rule = any
            .pointer_mut("/spec/rules/0")
            .and_then(serde_json::Value::as_object_mut);
        rule.context("the rule")?.remove("host");
        edge.objects.put(
            "any",
            &[class(), any, service("web"), slice("web", &[pod.address])],
        )?;
        let ingress = Ingress::start(edge, &[]).await?;
        let server = if tls { ingress.https() } else { ingress.http() };
        let cases = h2spec::run(edge, &program, server, PATH, tls)?;
        let answered = |case: &Case| {
            let said = case.failure.as_deref().unwrap_or_default();
            !tls && case.name == OTHERWISE && said.contains("looked like an HTTP/1.1 header")
        };
        let failed: Vec<&Case> = cases
            .iter()
            .filter(|case| (case.failure.is_some() || case.skipped) && !answered(case))
            .collect();
        println!("{} cases, {} failed or were skipped", cases.len(), failed.len());
        ensure!(failed.is_empty(), "{failed:#?}");
        ensure!(cases.len() >= ALL, "only {} cases", cases.len());
        Ok(())
    })
}

#[test]
fn every_case_passes_in_clear_text() -> Result<()> {
    conforms("h2spec", false)
}

#[test]
fn every_case_passes_over_tls() -> Result<()> {
    conforms("h2spec-tls", true)
}
