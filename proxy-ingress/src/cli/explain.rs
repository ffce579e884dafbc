//! `weir-ingress explain`: where a request would go, and why.

use std::fmt::Write as _;

use anyhow::Result;
use proxy_daemon::answer;

use super::lists;
use crate::admin::socket::ask;
use crate::admin::{Explained, Question, Request};
use crate::config::{ExplainFlags, Output};

/// Asks, and prints the answer.
pub fn explain(flags: &ExplainFlags) -> Result<()> {
    let headers = flags.header.iter().map(|header| header.0.clone());
    let request = Request {
        method: flags.request.clone(),
        url: flags.url.clone(),
        headers: headers.collect(),
    };
    let explained: Explained = ask(&flags.ask.admin_socket, &Question::Explain(request.clone()))?;
    if flags.ask.output == Output::Json {
        answer::print_json(&explained)?;
    } else {
        answer::print(&text(&request, &explained))?;
    }
    Ok(())
}

fn text(request: &Request, explained: &Explained) -> String {
    let mut lines = vec![format!("{} {}", request.method, request.url)];
    let mut line = |name: &str, what: &str| {
        if !what.is_empty() {
            lines.push(format!("{name:<12} {what}"));
        }
    };
    line("listener", &explained.listeners.join(", "));
    if let Some(certificate) = &explained.certificate {
        let shown = match certificate.shown.as_str() {
            "" => "(default)",
            shown => shown,
        };
        line(
            "certificate",
            &format!(
                "{shown}, for {}, expires {}",
                certificate.host, certificate.expires
            ),
        );
    }
    line("host", &explained.host);
    line("path", &explained.path);
    for asked in &explained.hosts {
        line("asked", asked);
    }
    for candidate in &explained.candidates {
        let route = &candidate.route;
        let what = format!(
            "{} {} {} of Ingress {} (rules[{}].paths[{}])",
            route.host, route.path, route.path_type, route.ingress, route.rule, route.entry
        );
        match &candidate.lost {
            None => line("takes it", &what),
            Some(why) => line("not", &format!("{what}: {why}")),
        }
    }
    for filter in &explained.filters {
        line("filter", filter);
    }
    line("answer", &explained.answer);
    let mut text = lines.join("\n");
    text.push('\n');
    if !explained.endpoints.is_empty() {
        // Writing to a String cannot fail.
        let _written = write!(text, "\n{}", lists::table(&explained.endpoints).render(true));
    }
    text
}
