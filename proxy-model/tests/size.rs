//! How long a plan takes on a big cluster. `cargo test --release -p proxy-model --test size -- --nocapture` prints it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it needs the clock"
)]

use std::time::{Duration, Instant};

use proxy_model::{Change, Kind, Limits, Object};
use serde_json::{Value, json};
use weir_scenario::{Driver, FakeKernel, Kernel};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn service(number: usize) -> Object {
    let address = format!(
        "10.{}.{}.{}",
        96 + number / 65_536,
        number / 256 % 256,
        number % 256
    );
    object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{number}")},
        "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]},
    }))
}

fn slice(owner: usize, part: usize, endpoints: usize) -> Object {
    let endpoint = |index: usize| {
        let number = owner * 100 + part * 1000 + index;
        json!({"addresses": [format!("10.{}.{}.{}", number / 65_536 % 64, number / 256 % 256, number % 256)],
               "nodeName": if index == 0 { "node-a" } else { "node-b" }})
    };
    object(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("slice-{owner}-{part}"),
                     "labels": {"kubernetes.io/service-name": format!("service-{owner}")}},
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}],
    }))
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:?}", start.elapsed());
    result
}

/// Applies without the fake kernel's checks, which look at every row after every step.
fn settle(driver: &mut Driver) -> usize {
    let mut steps = 0;
    for round in 0.. {
        let plan = driver.model.plan(Duration::from_secs(2 * round));
        if plan.is_empty() && driver.model.next_wakeup().is_none() {
            break;
        }
        steps += plan.len();
        for step in &plan {
            driver.model.applied(step);
        }
    }
    steps
}

#[test]
fn n23_ten_thousand_services() {
    // Without optimisation this is about correctness, not time.
    const SERVICES: usize = if cfg!(debug_assertions) { 500 } else { 10_000 };
    let mut kernel = FakeKernel::new(Limits::default());
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    println!("{SERVICES} services");
    let services: Vec<Object> = (0..SERVICES).map(service).collect();
    let slices: Vec<Object> = (0..SERVICES).map(|owner| slice(owner, 0, 10)).collect();
    timed("observe services of 2 ports and 10 endpoints each", || {
        driver
            .model
            .observe(Change::Replace(Kind::Service, services.clone()));
        driver
            .model
            .observe(Change::Replace(Kind::EndpointSlice, slices.clone()));
        driver.model.observe(Change::Replace(Kind::Node, Vec::new()));
    });
    let plan = timed("first plan", || driver.model.plan(Duration::ZERO));
    println!("steps: {}", plan.len());
    timed("settle", || settle(&mut driver));
    assert_eq!(driver.model.describe().services, SERVICES);
    assert_eq!(driver.model.describe().backends, SERVICES * 20);

    for step in &plan {
        // Straight into the maps: the checks of `apply` are for stories.
        kernel.store(step);
    }
    let mut restarted = timed("restart: adopt", || {
        Driver::new(&Limits::default(), &mut kernel).unwrap()
    });
    restarted.model.observe(Change::Replace(Kind::Service, services));
    restarted
        .model
        .observe(Change::Replace(Kind::EndpointSlice, slices));
    restarted.model.observe(Change::Replace(Kind::Node, Vec::new()));
    assert_eq!(
        timed("restart: plan", || restarted.model.plan(Duration::ZERO)),
        []
    );

    driver.model.observe(Change::Put(slice(77, 0, 9)));
    let plan = timed("one endpoint of one of them goes", || {
        driver.model.plan(Duration::from_secs(100))
    });
    assert!(plan.len() < 10, "{plan:?}");
    assert_eq!(kernel.rows().unwrap().services.len(), SERVICES * 2);
}

#[test]
fn n4_three_thousand_endpoints_over_several_slices() {
    let mut kernel = FakeKernel::new(Limits::default());
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    driver.start(&[service(0)], &[]);
    for part in 0..30 {
        driver.model.observe(Change::Put(slice(0, part, 100)));
    }
    timed("plan 3,000 endpoints of 2 ports", || settle(&mut driver));
    assert_eq!(driver.model.describe().backends, 6000);
    driver.model.observe(Change::Put(slice(0, 29, 99)));
    timed("one of them goes", || settle(&mut driver));
    assert_eq!(driver.model.describe().backends, 5998);
}

#[test]
fn n22_a_megabyte_of_annotations_and_labels() {
    let padding = "x".repeat(1 << 20);
    let many: serde_json::Map<String, Value> = (0..20_000)
        .map(|number| (format!("example.com/label-{number}"), json!("x".repeat(40))))
        .collect();
    let huge = |name: &str, ip: &str| {
        object(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "annotations": {"example.com/blob": padding}, "labels": many},
            "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]},
        }))
    };
    let mut kernel = FakeKernel::new(Limits::default());
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    let objects = [
        huge("service-0", "10.96.0.0"),
        huge("other", "10.96.0.1"),
        slice(0, 0, 3),
    ];
    driver.start(&objects, &[]);
    timed("plan two Services of two megabytes each", || settle(&mut driver));
    assert_eq!(driver.model.describe().services, 2);
    assert_eq!(driver.model.describe().backends, 3);
    assert!(
        driver.problems().is_empty(),
        "{:?}",
        driver.model.problems().len()
    );
}
