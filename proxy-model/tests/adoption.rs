//! Rows of a former agent that are not what they seem: each lie costs what it is about, and ends as the truth.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use proxy_common::{BackendRange, ServiceName};
use proxy_model::{Adopted, Change, Kind, Limits, Object, Step, parse_address};
use serde_json::json;
use weir_scenario::driver::local_addresses;
use weir_scenario::{Driver, FakeKernel, Kernel, render};

fn object(value: serde_json::Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn objects() -> Vec<Object> {
    let mut objects = Vec::new();
    for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
        objects.push(object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "clusterIP": format!("10.96.0.{number}"), "ports": [{"port": 80}],
                "sessionAffinity": if name == "c" { "ClientIP" } else { "None" },
            },
        })));
        let endpoints: Vec<_> = (1..=number)
            .map(|host| json!({"addresses": [format!("10.0.{number}.{host}")]}))
            .collect();
        objects.push(object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": endpoints, "ports": [{"port": 8080}],
        })));
    }
    objects
}

/// The rows of a node at rest.
fn good() -> (Adopted, String) {
    let mut kernel = FakeKernel::new(Limits::default());
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    driver.start(&objects(), &[]);
    driver.settle(&mut kernel).unwrap();
    let rows = kernel.rows().unwrap();
    let text = render::rows(&rows);
    (rows, text)
}

/// A kernel that holds these rows.
fn holding(rows: &Adopted) -> FakeKernel {
    let mut kernel = FakeKernel::new(Limits::default());
    for (id, state) in &rows.states {
        kernel.store(&Step::PutBackendState {
            id: *id,
            generation: state.generation,
        });
        if state.serving == 0 {
            kernel.store(&Step::RetireBackend { id: *id });
        }
    }
    let backends = rows.backends.iter();
    backends.for_each(|(slot, row)| {
        kernel.store(&Step::PutBackend {
            slot: *slot,
            backend: *row,
        });
    });
    for (_, row) in &rows.affinity_backends {
        kernel.store(&Step::PutAffinityBackend { row: *row });
    }
    for (id, name) in &rows.names {
        kernel.store(&Step::PutName { id: *id, name: *name });
    }
    for (key, row) in &rows.services {
        kernel.store(&Step::PutService {
            key: *key,
            service: *row,
        });
    }
    for (address, row) in &rows.addresses {
        kernel.store(&Step::PutAddress {
            address: *address,
            row: *row,
        });
    }
    kernel
}

/// What the kernel holds after an agent has started over these rows, and the steps that it took.
fn recover(rows: &Adopted) -> (String, Vec<Step>) {
    let mut kernel = holding(rows);
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    driver.start(&objects(), &[]);
    driver.mends = true;
    let first = driver.model.plan(Duration::ZERO);
    driver.settle(&mut kernel).unwrap();
    // Until the lie is gone the fake kernel complains about it; afterwards all promises hold.
    kernel.check().unwrap();
    assert_eq!(kernel.forbidden, [""; 0]);
    driver.check_restart(&mut kernel).unwrap();
    (render::rows(&kernel.rows().unwrap()), first)
}

#[test]
fn honest_rows_are_left_alone() {
    let (rows, text) = good();
    assert_eq!(recover(&rows), (text, Vec::new()));
}

/// A lie that a map may tell.
type Lie = fn(&mut Adopted);

const LIES: [(&str, Lie); 19] = [
    ("a row refers to another service's slots", |rows| {
        rows.services[0].1.cluster = rows.services[1].1.cluster;
    }),
    ("a row refers to slots beyond the map", |rows| {
        rows.services[0].1.cluster = BackendRange {
            base: u32::MAX,
            count: 4,
        };
    }),
    ("a row refers to slots that nobody wrote", |rows| {
        rows.services[0].1.cluster = BackendRange { base: 900, count: 2 };
    }),
    ("a row refers to more slots than it has", |rows| {
        rows.services[0].1.cluster.count += 1;
    }),
    ("a row has another id", |rows| rows.services[0].1.id = 2),
    ("a row has an id that nobody has", |rows| {
        rows.services[0].1.id = 77;
    }),
    ("a row has another generation", |rows| {
        rows.services[0].1.generation += 1;
    }),
    ("two services have one backend id", |rows| {
        rows.backends[1].1.id = rows.backends[0].1.id;
    }),
    ("a slot says that it is another service's", |rows| {
        rows.backends[0].1.service = 2;
    }),
    ("a backend is retired", |rows| rows.states[1].1.serving = 0),
    ("a backend has another generation", |rows| {
        rows.states[1].1.generation += 5;
    }),
    ("two ids have one name", |rows| {
        let (_, name) = rows.names[0];
        rows.names[1].1 = name;
    }),
    ("a name is damaged", |rows| {
        rows.names[0].1 = ServiceName {
            name: [0xff; 64],
            ..rows.names[0].1
        };
    }),
    ("a frontend of nobody", |rows| {
        let (mut key, row) = rows.services[0];
        key.port = 9;
        rows.services.push((key, row));
    }),
    ("clients stick to another place", |rows| {
        rows.affinity_backends[0].1.backend.port += 1;
    }),
    ("clients stick to a former generation", |rows| {
        rows.affinity_backends[0].1.backend.generation += 1;
    }),
    ("clients stick to a backend of a set that has it not", |rows| {
        rows.affinity_backends[0].1.in_local = 1;
    }),
    ("clients cannot stick to a backend", |rows| {
        rows.affinity_backends.remove(0);
    }),
    ("clients stick to a backend of nobody", |rows| {
        let mut row = rows.affinity_backends[0].1;
        row.backend.id = 77;
        rows.affinity_backends.push((77, row));
    }),
];

#[test]
fn lies_are_found_and_corrected() {
    let (rows, text) = good();
    for (what, lie) in LIES {
        let mut rows = rows.clone();
        lie(&mut rows);
        let (after, steps) = recover(&rows);
        assert_eq!(after, text, "{what}");
        assert!(!steps.is_empty(), "{what}");
    }
}

#[test]
fn a_node_whose_objects_are_gone_is_emptied() {
    let (rows, _) = good();
    let mut kernel = holding(&rows);
    let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
    for kind in [Kind::Node, Kind::Service] {
        driver.observe(Change::Replace(kind, Vec::new()));
        assert_eq!(
            driver.model.plan(Duration::ZERO),
            [],
            "nothing before all lists are complete"
        );
    }
    driver.observe(Change::Replace(Kind::EndpointSlice, Vec::new()));
    driver.settle(&mut kernel).unwrap();
    let left = kernel.rows().unwrap();
    assert!(left.services.is_empty() && left.names.is_empty() && left.affinity_backends.is_empty());
    assert!(left.states.iter().all(|(_, state)| state.serving == 0));
}

#[test]
fn a_node_that_misses_one_list_is_left_alone_for_ever() {
    let (rows, text) = good();
    for missing in Kind::NEEDED {
        let mut kernel = holding(&rows);
        let mut driver = Driver::new(&Limits::default(), &mut kernel).unwrap();
        // Whatever else comes: complete lists of the other kinds, single objects, interfaces, walks, and time.
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != missing) {
            driver.observe(Change::Replace(kind, Vec::new()));
        }
        for object in objects().into_iter().take(2) {
            driver.observe(Change::Put(object.clone()));
            driver.observe(Change::Delete(object.kind(), object.name()));
        }
        driver.observe(Change::LocalAddresses(local_addresses(&[parse_address(
            "10.96.0.1",
        )
        .unwrap()])));
        driver.walk([].into());
        for hours in [0, 1, 1000] {
            let plan = driver.model.plan(Duration::from_secs(3600 * hours));
            assert_eq!(plan, [], "without a list of {missing}s");
            assert_eq!(driver.model.next_wakeup(), None);
        }
        driver.settle(&mut kernel).unwrap();
        assert_eq!(kernel.tried, 0);
        assert_eq!(render::rows(&kernel.rows().unwrap()), text);
    }
}
