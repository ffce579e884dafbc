//! Candidates against an API server in this process.

use kube::Config;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::connection;
use super::super::fake::FakeApi;
use super::*;

const WITHIN: Duration = Duration::from_secs(15);

/// As in the field, but faster; a Lease counts whole seconds.
const FAST: Times = Times {
    duration: Duration::from_secs(1),
    deadline: Duration::from_millis(600),
    retry: Duration::from_millis(60),
};

struct Running {
    leads: watch::Receiver<bool>,
    task: JoinHandle<()>,
    stop: watch::Sender<()>,
}

fn candidate(api: &FakeApi, identity: &str) -> Candidate {
    let url = format!("http://127.0.0.1:{}/", api.port);
    let client = connection::client(&Config::new(url.parse().unwrap())).unwrap();
    let of = LeaseName {
        namespace: "edge".to_owned(),
        name: "weir-ingress".to_owned(),
        identity: identity.to_owned(),
    };
    Candidate::new(client, of, FAST)
}

fn run(api: &FakeApi, identity: &str) -> Running {
    let mut candidate = candidate(api, identity);
    let (say, leads) = watch::channel(false);
    let (stop, mut stopped) = watch::channel(());
    let task = tokio::spawn(async move {
        tokio::select! {
            () = candidate.run(&say) => {}
            _ = stopped.changed() => {}
        }
        candidate.give_up().await;
    });
    Running { leads, task, stop }
}

impl Running {
    async fn becomes(&mut self, leads: bool) {
        let turned = self.leads.wait_for(|now| *now == leads);
        timeout(WITHIN, turned).await.unwrap().unwrap();
    }
}

fn lease(api: &FakeApi) -> Value {
    api.state().all("leases").first().cloned().unwrap_or_default()
}

#[tokio::test]
async fn one_leads_and_another_takes_over_at_once_when_it_gives_up() {
    let api = FakeApi::start().await;
    let mut first = run(&api, "a");
    first.becomes(true).await;
    let mut second = run(&api, "b");
    sleep(Duration::from_millis(1500)).await;
    assert!(*first.leads.borrow() && !*second.leads.borrow());
    let spec = lease(&api)["spec"].clone();
    assert_eq!(
        (
            &spec["holderIdentity"],
            &spec["leaseDurationSeconds"],
            &spec["leaseTransitions"]
        ),
        (&json!("a"), &json!(1), &json!(0))
    );
    assert_eq!(lease(&api)["metadata"]["namespace"], "edge");
    let began = Instant::now();
    first.stop.send_replace(());
    first.task.await.unwrap();
    second.becomes(true).await;
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    let spec = lease(&api)["spec"].clone();
    assert_eq!(
        (&spec["holderIdentity"], &spec["leaseTransitions"]),
        (&json!("b"), &json!(1))
    );
}

#[tokio::test]
async fn who_dies_is_followed_after_the_duration() {
    let api = FakeApi::start().await;
    let mut first = run(&api, "a");
    first.becomes(true).await;
    first.task.abort();
    let began = Instant::now();
    let mut second = run(&api, "b");
    second.becomes(true).await;
    assert!(began.elapsed() >= FAST.duration, "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_the_other_clock_shows_does_not_matter() {
    for renewed in ["2020-01-01T00:00:00.000000Z", "2090-01-01T00:00:00.000000Z"] {
        let api = FakeApi::start().await;
        let spec = json!({"holderIdentity": "a", "leaseDurationSeconds": 1, "leaseTransitions": 4,
                          "acquireTime": renewed, "renewTime": renewed});
        let object = json!({"metadata": {"namespace": "edge"}, "spec": spec});
        api.put("leases", "weir-ingress", &object);
        let began = Instant::now();
        let mut second = run(&api, "b");
        second.becomes(true).await;
        let took = began.elapsed();
        assert!(
            took >= FAST.duration && took < FAST.duration * 3,
            "{renewed}: {took:?}"
        );
    }
}

#[tokio::test]
async fn who_cannot_renew_leads_no_more_before_another_may() {
    let api = FakeApi::start().await;
    let mut first = run(&api, "a");
    first.becomes(true).await;
    api.state().refuse.insert("leases".to_owned(), 500);
    let began = Instant::now();
    first.becomes(false).await;
    let took = began.elapsed();
    assert!(took < FAST.duration, "{took:?}");
    api.state().refuse.clear();
    first.becomes(true).await;
}

#[tokio::test]
async fn a_server_that_is_silent_is_no_reason_to_lead_on() {
    let api = FakeApi::start().await;
    let mut first = run(&api, "a");
    first.becomes(true).await;
    api.state().silent = true;
    let began = Instant::now();
    first.becomes(false).await;
    assert!(began.elapsed() < FAST.duration, "{:?}", began.elapsed());
}

#[tokio::test]
async fn of_many_only_one_leads() {
    let api = FakeApi::start().await;
    let mut all: Vec<Running> = (0..5).map(|number| run(&api, &format!("c{number}"))).collect();
    for _ in 0..20 {
        sleep(Duration::from_millis(50)).await;
        let leading = all.iter().filter(|one| *one.leads.borrow()).count();
        assert!(leading <= 1, "{leading} lead");
    }
    assert_eq!(all.iter().filter(|one| *one.leads.borrow()).count(), 1);
    // The Lease is deleted: whoever makes it anew leads, and the others see that.
    api.delete("leases", "weir-ingress");
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(all.iter().filter(|one| *one.leads.borrow()).count(), 1);
    let holder = lease(&api)["spec"]["holderIdentity"].clone();
    let leader = all.iter_mut().position(|one| *one.leads.borrow()).unwrap();
    assert_eq!(holder, format!("c{leader}"));
}
