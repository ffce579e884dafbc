//! The ingress's scenes: hosts and paths with TLS in front of the pods, and a certificate and a route that change under load.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use weir_lab::manifest::{Endpoint, Port, Service};
use weir_lab::{Process, clock};

use super::Stage;
use super::building::program;
use super::screen::Style;
use super::spread::millis_text;

/// Port of the web servers in the pods; the other demo scenes' server has 8080.
const TARGET: u16 = 8081;
/// The hosts of the Ingress.
const HOSTS: [&str; 2] = ["shop.demo.test", "blog.demo.test"];
/// Requests of each line.
const REQUESTS: u64 = 60;
/// Requests a second while things change.
const RATE: u64 = 300;
/// How long a change of a file may take until it is served.
const WITHIN: Duration = Duration::from_secs(10);

/// What is asked, and whose pods may answer.
const ROUTES: [(&str, &[&str]); 4] = [
    ("https://shop.demo.test/", &["web-1", "web-2"]),
    ("https://shop.demo.test/cart/items", &["web-3"]),
    ("https://blog.demo.test/2026/11", &["web-2", "web-3"]),
    ("https://blog.demo.test/feed", &["web-1"]),
];

/// The Services of the Ingress, and their pods.
const SERVICES: [(&str, &[&str]); 4] = [
    ("shop", &["web-1", "web-2"]),
    ("cart", &["web-3"]),
    ("blog", &["web-2", "web-3"]),
    ("feed", &["web-1"]),
];

/// What runs during the scenes. Dropping it ends it.
pub(super) struct Front {
    _pods: Vec<Process>,
    ingress: Process,
}

pub(super) fn play(stage: &mut Stage, number: usize) -> Result<()> {
    stage.screen.scene(
        number,
        "Hosts and paths, with TLS",
        "weir-ingress reads the same folder: IngressClass, Ingress, Secret; and sends each request straight to a pod.",
    );
    stage.write_ingress(&["web-3"])?;
    let front = stage.start_front()?;
    stage.show_routes()?;
    stage.show_refusals()?;
    stage.explain()?;
    stage.screen.scene(
        number + 1,
        "A certificate and a route change, under load",
        "New connections are shown the new certificate, new requests take the new route; what is there stays.",
    );
    let changed = stage.change_under_load();
    let log = front.ingress.log();
    stage.world.front = Some(front);
    changed.with_context(|| format!("the log of weir-ingress:\n{log}"))
}

impl Stage {
    /// The Ingress and all that it names; the path `/cart` is for these pods.
    fn write_ingress(&mut self, cart: &[&str]) -> Result<()> {
        self.write_certificate()?;
        let mut documents = vec![
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: weir}\n\
             spec: {controller: weir.network/ingress}\n"
                .to_owned(),
            INGRESS.to_owned(),
        ];
        for (number, (name, pods)) in (30..).zip(SERVICES) {
            let service = Service::new(
                name,
                &[std::net::Ipv4Addr::new(10, 96, 0, number).into()],
                &[Port::tcp("http", 80, TARGET)],
            );
            let pods = if name == "cart" { cart } else { pods };
            let backends = self
                .world
                .backends
                .iter()
                .filter(|pod| pods.contains(&pod.name()));
            let endpoints: Vec<_> = backends
                .map(|pod| Endpoint::new(pod.v4(), pod.node().name()))
                .collect();
            documents.push(service.to_yaml());
            documents.extend(service.slices(&endpoints));
        }
        self.world.manifests.write("ingress.yaml", &documents)
    }

    /// A new certificate for both hosts, in a Secret.
    fn write_certificate(&mut self) -> Result<()> {
        let authority = match self.world.authority.take() {
            Some(authority) => authority,
            None => self.make_authority()?,
        };
        let key = KeyPair::generate()?;
        let made = CertificateParams::new(HOSTS.map(str::to_owned).to_vec())?.signed_by(&key, &authority)?;
        self.world.authority = Some(authority);
        let indent = |pem: String| pem.trim_end().replace('\n', "\n    ");
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: demo-tls, namespace: default}}\n\
             type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            indent(made.pem()),
            indent(key.serialize_pem())
        );
        self.world.manifests.write("certificate.yaml", &[secret])
    }

    /// Who vouches for certificates; clients know it by a file.
    fn make_authority(&self) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key)?;
        fs::write(self.world.lab.dir().join("ca.pem"), made.pem())?;
        Ok(Issuer::new(params, key))
    }

    /// A web server in each pod, and the ingress on the first node.
    fn start_front(&mut self) -> Result<Front> {
        let web = program("weir-web")?;
        let mut pods = Vec::new();
        for pod in &self.world.backends {
            let mut command = Command::new(&web);
            command.args(["serve", "--name", pod.name(), "--port", &TARGET.to_string()]);
            pods.push(pod.spawn(command)?);
        }
        let mut command = Command::new(program("weir-ingress")?);
        command
            .args(["serve", "--manifests"])
            .arg(self.world.manifests.dir())
            .arg("--admin-socket")
            .arg(self.world.lab.dir().join("ingress.sock"));
        let mut ingress = self.world.n1().spawn(command)?;
        let ready = clock::wait_until(WITHIN, || {
            ingress.log().contains("ready at") || !ingress.is_running()
        });
        ensure!(
            ready && ingress.is_running(),
            "weir-ingress is not ready:\n{}",
            ingress.log()
        );
        Ok(Front { _pods: pods, ingress })
    }

    fn show_routes(&mut self) -> Result<()> {
        let place = self.world.n1().v4();
        self.screen.line(&format!(
            "   weir-ingress on n1, {place}:80 and :443; {REQUESTS} requests each, from outside"
        ));
        self.screen.blank();
        for (url, pods) in ROUTES {
            self.show_route(url, pods)?;
        }
        Ok(())
    }

    /// One URL, and who answered.
    fn show_route(&mut self, url: &str, pods: &[&str]) -> Result<()> {
        let report = Report::read(&self.load(url, "http2", REQUESTS, Some(1))?.wait_output()?)?;
        let names: Vec<&str> = report.pods.keys().map(String::as_str).collect();
        let good = names == pods && report.failed == 0;
        let claim = format!(
            "{url}: answered by {pods:?}; it was {:?}, {} failed",
            report.pods, report.failed
        );
        let mark = self.checks.note(good, &claim).show(&self.screen);
        let shares = report.pods.iter().map(|(name, count)| {
            let number = name
                .bytes()
                .last()
                .map_or(0, |digit| usize::from(digit.saturating_sub(b'1')));
            self.screen
                .paint(Style::Backend(number), &format!("{name} {count}"))
        });
        let shares: Vec<_> = shares.collect();
        self.screen
            .line(&format!("   {url:<36} {}  {mark}", shares.join("  ")));
        Ok(())
    }

    /// What is not served as it was asked for.
    fn show_refusals(&mut self) -> Result<()> {
        for (url, status, why) in [
            ("http://shop.demo.test/cart", 308, "to https"),
            ("http://other.demo.test/", 404, "a host that nobody has"),
        ] {
            let answer = self.get(url)?;
            let told = answer.get("status").and_then(Value::as_u64).unwrap_or(0);
            let claim = format!("{url}: {status}; it was {told}");
            let mark = self.checks.note(told == status, &claim).show(&self.screen);
            let location = answer.get("location").and_then(Value::as_str).unwrap_or(why);
            self.screen
                .line(&format!("   {url:<36} {told}: {location}  {mark}"));
        }
        Ok(())
    }

    /// Why, in the ingress's own words.
    fn explain(&mut self) -> Result<()> {
        let url = "https://shop.demo.test/cart/items";
        self.screen.blank();
        let prompt = self
            .screen
            .paint(Style::Bold, &format!("# weir-ingress explain {url}"));
        self.screen.line(&format!("   {prompt}"));
        let mut command = Command::new(program("weir-ingress")?);
        command.args(["explain", url, "--admin-socket"]);
        command.arg(self.world.lab.dir().join("ingress.sock"));
        let output = self.world.n1().output(command)?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in told.lines() {
            let line = self.screen.fit(line, 3);
            self.screen.line(&format!("   {line}"));
        }
        let good = output.status.success() && told.contains("cart");
        let claim = "weir-ingress explain names the Service cart";
        let mark = self.checks.note(good, claim).show(&self.screen);
        self.screen.line(&format!(
            "   {mark} the route, the certificate and the endpoints that such a request would meet"
        ));
        Ok(())
    }

    fn change_under_load(&mut self) -> Result<()> {
        let url = "https://shop.demo.test/cart/items";
        let before = self.certificate(url)?;
        let loads = [
            ("HTTP/1.1", self.load(url, "http1", RATE / 3, None)?),
            ("HTTP/2", self.load(url, "http2", RATE / 3, None)?),
            ("WebSocket", self.load(url, "websocket", RATE / 3, None)?),
        ];
        self.screen.line(&format!(
            "   {RATE} requests a second to {url}: HTTP/1.1, HTTP/2, WebSocket"
        ));
        let phase = Duration::from_secs(self.pace.phase);
        thread::sleep(phase);
        self.write_ingress(&["web-1"])?;
        let begun = clock::now();
        let renewed = clock::wait_until(WITHIN, || self.certificate(url).is_ok_and(|now| now != before));
        let moved = clock::wait_until(WITHIN, || self.pod(url).is_ok_and(|pod| pod == "web-1"));
        let took = u64::try_from(begun.elapsed().as_micros())?;
        let claim = "a new certificate and a new endpoint are served";
        let mark = self.checks.note(renewed && moved, claim).show(&self.screen);
        self.screen.line(&format!(
            "   {mark} the files are written; the new certificate is shown, and /cart is web-1's, within {}",
            millis_text(took)
        ));
        thread::sleep(phase);
        for (name, load) in loads {
            let report = Report::read(&load.stop()?)?;
            let good = report.failed == 0 && report.ok > 0;
            let claim = format!(
                "{name}: no request fails while things change; it was {:?}",
                report.failures
            );
            let mark = self.checks.note(good, &claim).show(&self.screen);
            self.screen.line(&format!(
                "   {mark} {name:<10} {} answered, {} failed",
                report.ok, report.failed
            ));
        }
        Ok(())
    }

    /// Requests from outside; as JSON when it ends.
    fn load(&self, url: &str, speech: &str, rate: u64, seconds: Option<u64>) -> Result<Load> {
        let mut command = self.web("load", url)?;
        command.args(["--speech", speech, "--rate", &rate.to_string()]);
        if let Some(seconds) = seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        Ok(Load(self.world.outside.spawn(command)?))
    }

    fn web(&self, verb: &str, url: &str) -> Result<Command> {
        let port = if url.starts_with("https") { 443 } else { 80 };
        let mut command = Command::new(program("weir-web")?);
        command
            .args([
                verb,
                url,
                "--connect",
                &format!("{}:{port}", self.world.n1().v4()),
                "--ca",
            ])
            .arg(self.world.lab.dir().join("ca.pem"));
        Ok(command)
    }

    /// One request from outside.
    fn get(&self, url: &str) -> Result<Value> {
        let output = self.world.outside.output(self.web("get", url)?)?;
        ensure!(
            output.status.success(),
            "{url}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("the client's answer is broken")
    }

    fn certificate(&self, url: &str) -> Result<String> {
        field(&self.get(url)?, "certificate")
    }

    fn pod(&self, url: &str) -> Result<String> {
        field(&self.get(url)?, "pod")
    }
}

fn field(answer: &Value, name: &str) -> Result<String> {
    let text = answer.get(name).and_then(Value::as_str);
    text.map(str::to_owned)
        .with_context(|| format!("no {name} in {answer}"))
}

/// A client that runs.
struct Load(Process);

impl Load {
    /// Waits for its end, and returns what it printed.
    fn wait_output(mut self) -> Result<String> {
        let status = self.0.wait(Duration::from_secs(30))?;
        let log = self.0.log();
        if !status.success() {
            bail!("the client failed ({status}): {log}");
        }
        Ok(log)
    }

    /// Ends it.
    fn stop(self) -> Result<String> {
        self.0.signal(rustix::process::Signal::TERM)?;
        self.wait_output()
    }
}

/// What a client tells, as far as it is shown.
#[derive(serde::Deserialize)]
struct Report {
    ok: u64,
    failed: u64,
    failures: Vec<String>,
    pods: BTreeMap<String, u64>,
}

impl Report {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text.trim()).with_context(|| format!("the client's report is broken: {text}"))
    }
}

/// Two hosts, four paths.
const INGRESS: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front, namespace: default}
spec:
  ingressClassName: weir
  tls: [{hosts: [shop.demo.test, blog.demo.test], secretName: demo-tls}]
  rules:
    - host: shop.demo.test
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}
          - {path: /cart, pathType: Prefix, backend: {service: {name: cart, port: {number: 80}}}}
    - host: blog.demo.test
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: blog, port: {number: 80}}}}
          - {path: /feed, pathType: Exact, backend: {service: {name: feed, port: {number: 80}}}}
";
