//! The flags of what is told of requests.

use std::str::FromStr;

use clap::Args;

use super::Telemetry;
use crate::access::{AccessLog, Destination, Field};
use crate::trace::{Collector, Tracing};

/// What is told of requests.
#[derive(Args, Clone, Debug)]
pub struct TelemetryFlags {
    /// Count requests by host as well: the hosts of rules, the first 1,000 of them
    #[arg(long)]
    pub metrics_per_host: bool,
    /// Where a line goes for each request: stdout, a file, or off
    #[arg(long, value_name = "PATH|stdout|off", default_value = "off")]
    pub access_log: Target,
    /// What a line tells, in this order; all that there is are listed in docs/ingress.md
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', default_values_t = AccessLog::DEFAULT.iter().copied())]
    pub access_log_fields: Vec<Field>,
    /// Write one of N requests; errors are always written
    #[arg(long, value_name = "1/N", default_value = "1/1")]
    pub access_log_sample: Sample,
    /// Send spans to this collector: OTLP over HTTP, at port 4318 unless it has another
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<Collector>,
    /// Of requests that bring no trace, trace this part: from 0 to 1. A trace that somebody began is followed if it is sampled
    #[arg(long, value_name = "RATIO", default_value = "0")]
    pub trace_ratio: Ratio,
    /// The name of this service in traces
    #[arg(long, value_name = "NAME", default_value = "weir-ingress")]
    pub trace_service: String,
    /// What else traces tell of this process, as OpenTelemetry's libraries read it
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_delimiter = ',',
        env = "OTEL_RESOURCE_ATTRIBUTES"
    )]
    pub trace_resource: Vec<Attribute>,
}

/// Where the access log goes, if anywhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target(pub Option<Destination>);

impl FromStr for Target {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        Ok(Self(match text {
            "" => return Err(FlagError::NoTarget),
            "off" => None,
            "stdout" | "-" => Some(Destination::Stdout),
            path => Some(Destination::File(path.into())),
        }))
    }
}

/// One of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample(pub u32);

impl FromStr for Sample {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let number = text.strip_prefix("1/").and_then(|number| number.parse().ok());
        let number = number.filter(|number| *number > 0);
        number
            .map(Self)
            .ok_or_else(|| FlagError::NoSample(text.to_owned()))
    }
}

/// A part of a whole.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio(pub f64);

impl FromStr for Ratio {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
        number
            .map(Self)
            .ok_or_else(|| FlagError::NoRatio(text.to_owned()))
    }
}

/// A name and a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute(pub String, pub String);

impl FromStr for Attribute {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let parts = text
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()));
        let (key, value) = parts
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| FlagError::NoAttribute(text.to_owned()))?;
        Ok(Self(key.to_owned(), value.to_owned()))
    }
}

/// What is wrong with a flag.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum FlagError {
    /// An empty path.
    #[error("give stdout, off or a path")]
    NoTarget,
    /// No part of a whole.
    #[error("{0:?} is no part of the requests; give 1/10 for every tenth")]
    NoSample(String),
    /// No part of a whole.
    #[error("{0:?} is no part of the requests; give a number from 0 to 1")]
    NoRatio(String),
    /// No name and value.
    #[error("{0:?} is no attribute; give key=value")]
    NoAttribute(String),
    /// Traces that nobody takes.
    #[error("--trace-ratio asks for traces, and --otlp-endpoint does not say who takes them")]
    NoCollector,
    /// A field that a line would have twice.
    #[error("--access-log-fields has {0} twice")]
    Twice(Field),
}

impl TelemetryFlags {
    /// The settings that they ask for.
    pub fn settle(self) -> Result<Telemetry, FlagError> {
        let mut fields: Vec<Field> = Vec::new();
        for field in self.access_log_fields {
            if fields.contains(&field) {
                return Err(FlagError::Twice(field));
            }
            fields.push(field);
        }
        let access_log = self.access_log.0.map(|to| AccessLog {
            to,
            fields,
            one_of: self.access_log_sample.0,
        });
        let Ratio(ratio) = self.trace_ratio;
        if ratio > 0.0 && self.otlp_endpoint.is_none() {
            return Err(FlagError::NoCollector);
        }
        let attributes = self.trace_resource.into_iter();
        let resource = attributes.map(|Attribute(key, value)| (key, value)).collect();
        let tracing = self.otlp_endpoint.map(|collector| Tracing {
            ratio,
            service: self.trace_service,
            resource,
            ..Tracing::new(collector)
        });
        Ok(Telemetry {
            tracing,
            hosts: self.metrics_per_host,
            access_log,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: TelemetryFlags,
    }

    fn settled(line: &str) -> Result<Telemetry, String> {
        let parsed = Line::try_parse_from(["weir-ingress"].into_iter().chain(line.split_whitespace()));
        let flags = parsed.map_err(|error| error.to_string())?.flags;
        flags.settle().map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_nothing_is_told() {
        let telemetry = settled("").unwrap();
        assert!(telemetry.access_log.is_none() && telemetry.tracing.is_none() && !telemetry.hosts);
    }

    #[test]
    fn an_access_log_has_a_place_fields_and_a_part() {
        let log = settled("--access-log stdout").unwrap().access_log.unwrap();
        assert_eq!((log.to, log.one_of), (Destination::Stdout, 1));
        assert_eq!(log.fields, AccessLog::DEFAULT);
        let line =
            "--access-log /a/b --access-log-fields status,query --access-log-sample 1/100 --metrics-per-host";
        let telemetry = settled(line).unwrap();
        let log = telemetry.access_log.unwrap();
        assert_eq!(
            (log.to, log.one_of, telemetry.hosts),
            (Destination::File("/a/b".into()), 100, true)
        );
        assert_eq!(log.fields, [Field::Status, Field::Query]);
    }

    #[test]
    fn traces_have_a_collector() {
        let line =
            "--otlp-endpoint http://otel --trace-ratio 0.5 --trace-resource a=b,c=d=e --trace-service edge";
        let tracing = settled(line).unwrap().tracing.unwrap();
        assert_eq!(
            (tracing.collector.to_string().as_str(), tracing.service.as_str()),
            ("http://otel/v1/traces", "edge")
        );
        assert!((tracing.ratio - 0.5).abs() < 1e-9);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(tracing.resource, [pair("a", "b"), pair("c", "d=e")]);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (line, told) in [
            ("--access-log-sample 1/0", "every tenth"),
            ("--access-log-sample 10", "every tenth"),
            ("--otlp-endpoint https://otel", "Clear text only"),
            ("--otlp-endpoint http://otel --trace-ratio 2", "from 0 to 1"),
            ("--trace-ratio 1", "who takes them"),
            ("--otlp-endpoint http://otel --trace-resource a", "key=value"),
            ("--access-log-fields cookie", "no field"),
            ("--access-log-fields status,path,status", "status twice"),
        ] {
            let error = settled(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
