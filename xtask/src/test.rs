//! `test`: the ladder of suites, and one line with the sum.

mod piped;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::count::Count;
use crate::image::Shipped;
use crate::{build, cluster, e2e, h2spec, image, packages, shell, workspace};

/// What `test` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The suites to run; all if none is named
    suites: Vec<Suite>,
    /// Part of a test's name, and whatever else the test harness understands
    #[arg(last = true)]
    filter: Vec<String>,
    /// Fail the tests that cannot run here; else they are skipped
    #[arg(long, env = "REQUIRE_ROOT", value_parser = clap::builder::FalseyValueParser::new())]
    require_root: bool,
    #[command(flatten)]
    e2e: e2e::E2eArgs,
    #[command(flatten)]
    oracle: OracleArgs,
}

/// What the oracle is asked besides.
#[derive(clap::Args)]
struct OracleArgs {
    /// oracle: number of the first state
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// oracle: how many states, each of which is the one before with some changes
    #[arg(long, default_value_t = 150)]
    states: u64,
}

impl Default for OracleArgs {
    fn default() -> Self {
        Self { seed: 1, states: 150 }
    }
}

impl Args {
    /// Every suite, every test.
    pub(crate) fn everything() -> Self {
        Self {
            suites: Vec::new(),
            filter: Vec::new(),
            require_root: true,
            e2e: e2e::E2eArgs::default(),
            oracle: OracleArgs::default(),
        }
    }

    /// The suites to run; an error if something is asked that none of them would do.
    fn suites(&self) -> Result<Vec<Suite>> {
        let names_e2e = self.suites.contains(&Suite::E2e);
        if self.e2e.ask_for_something() && !names_e2e {
            bail!(
                "--proxy, --focus, --procs and --record are about the end-to-end tests: `./x test e2e ...`"
            );
        }
        if names_e2e && !self.filter.is_empty() {
            let filter = self.filter.join(" ");
            bail!("the end-to-end tests take no filter `-- {filter}`: --focus REGEX chooses their specs");
        }
        let mut suites = chosen(&self.suites)?;
        // Tests with a certain name are looked for among ours.
        suites.retain(|suite| self.filter.is_empty() || *suite != Suite::E2e);
        Ok(suites)
    }
}

/// A rung of the ladder, the cheapest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Suite {
    /// Pure functions: no root, no nightly
    Unit,
    /// The laboratory itself: network namespaces, senders and receivers (root)
    Support,
    /// Objects in, rows out: on a fake kernel, and as root on the real one
    Scenario,
    /// Packets through the loaded programs, and the same packets through the same code in user space (root)
    Packet,
    /// Nodes as network namespaces, with real traffic (root)
    Node,
    /// The whole ingress process: h2spec, attacks beside a normal client, changes under load (root, and Go for the first time)
    Ingress,
    /// A real cluster with weir as its DaemonSet (root, and Go for the first time)
    Cluster,
    /// Random Services, and the same probes at a node with kube-proxy and one with weir (root, and Go for the first time)
    Oracle,
    /// Kubernetes' own end-to-end tests in such a cluster: conformance, and all of its network group when named
    E2e,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Support => "support",
            Self::Scenario => "scenario",
            Self::Packet => "packet",
            Self::Node => "node",
            Self::Ingress => "ingress",
            Self::Cluster => "cluster",
            Self::Oracle => "oracle",
            Self::E2e => "e2e",
        }
    }

    /// What names the program that is tried.
    fn variable(self) -> &'static str {
        match self {
            Self::Ingress => "WEIR_INGRESS_BIN",
            _ => "WEIR_BIN",
        }
    }

    /// Folder of the suite's package; the unit tests are those of the default members, the end-to-end tests not ours.
    fn folder(self) -> Option<String> {
        (!matches!(self, Self::Unit | Self::E2e)).then(|| format!("tests/{}", self.name()))
    }

    fn exists(self) -> Result<bool> {
        self.folder()
            .map_or(Ok(true), |folder| workspace::has_member(&folder))
    }

    /// Commands that its tests run.
    fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Unit | Self::Cluster | Self::E2e => &[],
            Self::Oracle => &["ip", "nsenter", "nft"],
            Self::Support => &["ip", "nsenter"],
            Self::Ingress => &["chrt", "ip", "nsenter"],
            Self::Scenario | Self::Packet => &["ip", "nsenter", "bpftool", "strace"],
            Self::Node => &[
                "ip", "nsenter", "bpftool", "strace", "nft", "iptables", "ethtool", "tcpdump", "ping", "tc",
            ],
        }
    }

    /// Whether none of its tests can do without; the scenarios have a fake kernel as well.
    fn needs_root(self) -> bool {
        matches!(
            self,
            Self::Support
                | Self::Packet
                | Self::Node
                | Self::Ingress
                | Self::Cluster
                | Self::Oracle
                | Self::E2e
        )
    }

    /// Its tests share one machine's devices, cgroups and clocks, so they take turns.
    fn takes_turns(self) -> bool {
        matches!(self, Self::Support | Self::Node | Self::Cluster)
    }
}

/// How a suite ended.
struct Outcome {
    suite: Suite,
    count: Count,
    green: bool,
    took: Duration,
    note: &'static str,
}

/// Runs the suites that `args` name.
pub(crate) fn run(args: &Args) -> Result<()> {
    let suites = args.suites()?;
    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
    eprintln!("x: suites: {}", names.join(", "));
    let mut outcomes = Vec::new();
    let mut run = Run {
        args,
        ships: suites.contains(&Suite::Cluster),
        clusters: cluster::Shared::default(),
    };
    for suite in suites {
        let (result, took) = shell::timed(|| run.suite(suite));
        outcomes.push(match result {
            Ok((count, green)) => {
                let note = if green || count.failed > 0 {
                    ""
                } else {
                    "did not run to its end"
                };
                Outcome {
                    suite,
                    count,
                    green,
                    took,
                    note,
                }
            }
            Err(error) => {
                eprintln!("x: {}: {error:#}", suite.name());
                Outcome {
                    suite,
                    count: Count::default(),
                    green: false,
                    took,
                    note: "could not run",
                }
            }
        });
    }
    report(&outcomes)
}

fn chosen(named: &[Suite]) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for &suite in Suite::value_variants() {
        let exists = suite.exists()?;
        if !exists && named.contains(&suite) {
            bail!(
                "there is no suite {}: tests/{0} is not a member of the workspace",
                suite.name()
            );
        }
        if exists && (named.is_empty() || named.contains(&suite)) {
            suites.push(suite);
        }
    }
    Ok(suites)
}

/// What the suites of one run share.
struct Run<'a> {
    args: &'a Args,
    /// Whether the images are built anyway: then their programs are what all suites try, and no others are built.
    ships: bool,
    /// Ends with the run.
    clusters: cluster::Shared,
}

impl Run<'_> {
    fn suite(&mut self, suite: Suite) -> Result<(Count, bool)> {
        let args = self.args;
        let root = packages::is_root();
        if suite.needs_root() && !root {
            return without_root(suite, args);
        }
        if suite == Suite::E2e {
            let scope = if args.suites.is_empty() {
                e2e::Scope::Conformance
            } else {
                e2e::Scope::Everything
            };
            return e2e::run(&args.e2e, scope, &mut self.clusters);
        }
        let mut program = workspace::agent();
        if suite.folder().is_some() && root {
            packages::need(suite.commands())?;
            program = self.program(suite)?;
        }
        // Built apart, so that cargo shows its progress as on any terminal.
        shell::run(cargo_test(suite, &program)?.arg("--no-run"))?;
        let mut tests = cargo_test(suite, &program)?;
        if suite == Suite::Ingress {
            tests.env("WEIR_H2SPEC", h2spec::ensure()?);
        }
        if suite == Suite::Cluster {
            self.clusters.need(cluster::Proxy::Weir, true)?;
            tests
                .env("WEIR_LAB_PEER", weir_lab::peer_binary()?)
                .env("WEIR_WEB_BIN", build::program("weir-web")?)
                .env("WEIR_CLUSTER", cluster::state_file());
        }
        // Ends with the suite.
        let mut api_server = None;
        if suite == Suite::Oracle {
            let api_server = api_server.insert(cluster::ApiServer::start()?);
            tests
                .env("WEIR_ORACLE_KUBECONFIG", api_server.kubeconfig())
                .env("WEIR_ORACLE_KUBE_PROXY", api_server.kube_proxy())
                .env("WEIR_ORACLE_SEED", args.oracle.seed.to_string())
                .env("WEIR_ORACLE_STATES", args.oracle.states.to_string());
        }
        if args.require_root {
            tests.env("REQUIRE_ROOT", "1");
        }
        tests
            .args(["--no-fail-fast", "--color", piped::color(), "--"])
            .args(&args.filter);
        if suite.takes_turns() && !args.filter.iter().any(|word| word.starts_with("--test-threads")) {
            tests.arg("--test-threads=1");
        }
        let (said, green) = piped::tee(tests)?;
        Ok((Count::read(&said), green))
    }

    /// Builds the program that is tried.
    fn program(&self, suite: Suite) -> Result<PathBuf> {
        match (suite, self.ships) {
            (Suite::Ingress, true) => image::binary(Shipped::Ingress),
            (Suite::Ingress, false) => build::program("weir-ingress"),
            (_, true) => image::binary(Shipped::Agent),
            (_, false) => {
                build::all()?;
                Ok(workspace::agent())
            }
        }
    }
}

/// Nothing is built for tests that could only say that they need root. The suite counts as one that was skipped, unless it
/// was named: who asks for it wants to see it run.
fn without_root(suite: Suite, args: &Args) -> Result<(Count, bool)> {
    if args.require_root {
        bail!("needs root, and REQUIRE_ROOT is set");
    }
    if args.suites.contains(&suite) {
        bail!("needs root: sudo ./x test {}", suite.name());
    }
    eprintln!("\nSKIP: {} needs root: sudo ./x test {0}", suite.name());
    Ok((
        Count {
            skipped: 1,
            ..Count::default()
        },
        true,
    ))
}

fn cargo_test(suite: Suite, program: &Path) -> Result<Command> {
    let mut cargo = shell::cargo(["test"]);
    if let Some(folder) = suite.folder() {
        cargo.args(["--package", &workspace::package_name(&folder)?]);
        cargo
            .env(suite.variable(), program)
            .env("WEIR_BPF_OBJECT", workspace::object());
        cargo.env("PATH", packages::search_path());
    }
    Ok(cargo)
}

/// Prints the table and the sum; an error if anything failed.
fn report(outcomes: &[Outcome]) -> Result<()> {
    let sum = sum(outcomes);
    let rows: Vec<_> = outcomes.iter().map(row).collect();
    let head = format!(
        "{:<10}{:>8}{:>8}{:>9}{:>9}",
        "suite", "passed", "failed", "skipped", "time"
    );
    shell::say(&format!("\n{head}\n{}\n\n{sum}", rows.join("\n")));
    if outcomes.iter().any(|outcome| !outcome.green) {
        bail!("tests failed");
    }
    if sum.total() == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn row(outcome: &Outcome) -> String {
    let Count {
        passed,
        failed,
        skipped,
    } = outcome.count;
    let (name, seconds, note) = (outcome.suite.name(), outcome.took.as_secs(), outcome.note);
    format!("{name:<10}{passed:>8}{failed:>8}{skipped:>9}{seconds:>7} s  {note}")
        .trim_end()
        .to_owned()
}

/// A suite that did not run to its end is a failure that the harness did not count.
fn sum(outcomes: &[Outcome]) -> Count {
    let mut sum = Count::default();
    for Outcome { count, green, .. } in outcomes {
        sum.add(*count);
        sum.failed += u64::from(!green && count.failed == 0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, green: bool) -> Outcome {
        let count = Count {
            passed,
            failed,
            skipped: 1,
        };
        Outcome {
            suite: Suite::Unit,
            count,
            green,
            took: Duration::ZERO,
            note: "",
        }
    }

    #[test]
    fn the_sum_counts_suites_that_broke_off() {
        let outcomes = [outcome(3, 0, true), outcome(2, 1, false), outcome(0, 0, false)];
        assert_eq!(sum(&outcomes).to_string(), "5 passed, 2 failed, 3 skipped");
        assert!(report(&outcomes).is_err());
    }

    fn suites(words: &[&str]) -> Result<Vec<Suite>> {
        #[derive(clap::Parser)]
        struct Test {
            #[command(flatten)]
            args: Args,
        }
        let words = std::iter::once("test").chain(words.iter().copied());
        <Test as clap::Parser>::try_parse_from(words)?.args.suites()
    }

    #[test]
    fn what_no_suite_would_do_is_an_error() {
        for words in [
            &["cluster", "--proxy", "kube-proxy-nftables"][..],
            &["node", "--focus", "x"],
            &["--record"],
            &["cluster", "--procs", "2"],
            &["e2e", "--", "hairpin"],
        ] {
            assert!(suites(words).is_err(), "{words:?}");
        }
        assert_eq!(
            suites(&["e2e", "--focus", "x", "--record"]).unwrap(),
            [Suite::E2e]
        );
        assert_eq!(
            suites(&["cluster", "e2e", "--procs=8"]).unwrap(),
            [Suite::Cluster, Suite::E2e]
        );
        assert_eq!(suites(&["node", "--", "hairpin"]).unwrap(), [Suite::Node]);
        assert!(suites(&[]).unwrap().contains(&Suite::E2e));
        assert!(!suites(&["--", "hairpin"]).unwrap().contains(&Suite::E2e));
    }

    #[test]
    fn a_suite_that_was_named_must_run() {
        let args = |suites: &[Suite]| Args {
            suites: suites.to_vec(),
            require_root: false,
            ..Args::everything()
        };
        assert!(without_root(Suite::Node, &args(&[])).is_ok());
        assert!(without_root(Suite::Node, &args(&[Suite::Node])).is_err());
        assert!(without_root(Suite::Node, &Args::everything()).is_err());
    }

    #[test]
    fn no_test_is_no_success() {
        let mut nothing = outcome(0, 0, true);
        nothing.count.skipped = 0;
        assert!(report(&[nothing]).is_err());
        assert!(report(&[outcome(1, 0, true)]).is_ok());
    }
}
