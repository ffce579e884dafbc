//! Stories of Secrets without an API server.

use super::*;

const NOW: Duration = Duration::from_secs(1000);

fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName::new(namespace, name)
}

fn names(list: &[&str]) -> BTreeSet<ObjectName> {
    list.iter().map(|text| name(text)).collect()
}

fn book() -> Book {
    Book::new(vec![Scope::default()], 7)
}

fn ask(book: &mut Book) -> (ObjectName, u64) {
    match book.next(NOW) {
        Next::Ask(name, question) => (name, question),
        other => panic!("{other:?}"),
    }
}

fn found(version: &str) -> Answer {
    Answer::Found(Box::default(), version.to_owned())
}

/// Asks for what is due, and has this answer; what is passed on.
fn look(book: &mut Book, answer: Answer) -> &'static str {
    let (name, question) = ask(book);
    say(book.answered((&name, question), answer, NOW).as_ref())
}

fn say(change: Option<&Change>) -> &'static str {
    match change {
        None => "nothing",
        Some(Change::Put(_)) => "put",
        Some(Change::Delete(..)) => "delete",
        Some(_) => "something else",
    }
}

fn there(text: &str, version: &str) -> Look {
    Look::There(name(text), version.to_owned())
}

#[test]
fn a_wanted_name_is_asked_for_once_and_again_when_it_changes() {
    let mut book = book();
    assert_eq!(book.want(&names(&["shop/tls"]), NOW), []);
    assert_eq!(look(&mut book, found("5")), "put");
    // The list tells what is known already.
    book.hear(0, Look::Begin, NOW);
    book.hear(0, there("shop/tls", "5"), NOW);
    book.hear(0, there("shop/other", "6"), NOW);
    book.hear(0, Look::End, NOW);
    assert_eq!(book.next(NOW), Next::Idle);
    book.hear(0, there("shop/tls", "7"), NOW);
    assert_eq!(look(&mut book, found("7")), "put");
    assert_eq!(book.next(NOW), Next::Idle);
    // Once more, with what was passed on already.
    book.hear(0, there("shop/tls", "8"), NOW);
    assert_eq!(look(&mut book, found("7")), "nothing");
}

#[test]
fn what_is_not_there_is_said_once() {
    let mut book = book();
    book.want(&names(&["shop/tls"]), NOW);
    assert_eq!(look(&mut book, Answer::Missing), "delete");
    book.hear(0, Look::Begin, NOW);
    book.hear(0, Look::End, NOW);
    assert_eq!(book.next(NOW), Next::Idle);
    book.hear(0, there("shop/tls", "9"), NOW);
    assert_eq!(look(&mut book, found("9")), "put");
    book.hear(0, Look::Gone(name("shop/tls")), NOW);
    assert_eq!(look(&mut book, Answer::Missing), "delete");
}

#[test]
fn what_a_new_list_does_not_have_is_looked_for() {
    let mut book = book();
    book.want(&names(&["shop/tls", "shop/b"]), NOW);
    assert_eq!(look(&mut book, found("5")), "put");
    assert_eq!(look(&mut book, found("5")), "put");
    book.hear(0, Look::Begin, NOW);
    book.hear(0, there("shop/b", "5"), NOW);
    book.hear(0, Look::End, NOW);
    assert_eq!(look(&mut book, Answer::Missing), "delete");
    assert_eq!(book.next(NOW), Next::Idle);
}

#[test]
fn an_answer_that_was_overtaken_is_followed_by_another() {
    let mut book = book();
    book.want(&names(&["shop/tls"]), NOW);
    let (name, question) = ask(&mut book);
    book.hear(0, there("shop/tls", "8"), NOW);
    // One question at a time.
    assert_eq!(book.next(NOW), Next::Idle);
    assert_eq!(
        say(book.answered((&name, question), found("7"), NOW).as_ref()),
        "put"
    );
    assert_eq!(look(&mut book, found("8")), "put");
    assert_eq!(book.next(NOW), Next::Idle);
    // Deleted and made again while it was asked for.
    book.hear(0, there("shop/tls", "9"), NOW);
    let (name, question) = ask(&mut book);
    book.hear(0, Look::Gone(name.clone()), NOW);
    book.hear(0, there("shop/tls", "11"), NOW);
    assert_eq!(
        say(book.answered((&name, question), Answer::Missing, NOW).as_ref()),
        "delete"
    );
    assert_eq!(look(&mut book, found("11")), "put");
}

#[test]
fn answers_to_those_that_were_let_go_are_not_heard() {
    let mut book = book();
    book.want(&names(&["shop/tls"]), NOW);
    let (old, question) = ask(&mut book);
    book.want(&names(&[]), NOW);
    book.want(&names(&["shop/tls"]), NOW);
    let (new, again) = ask(&mut book);
    assert_eq!(say(book.answered((&new, again), found("8"), NOW).as_ref()), "put");
    assert_eq!(
        say(book.answered((&old, question), found("7"), NOW).as_ref()),
        "nothing"
    );
    book.hear(0, there("shop/tls", "9"), NOW);
    book.want(&names(&[]), NOW);
    assert_eq!(book.next(NOW), Next::Idle);
}

#[test]
fn what_fails_is_tried_less_and_less_and_holds_up_nobody() {
    let mut book = book();
    book.want(&names(&["shop/tls"]), NOW);
    let (mut now, mut waits) = (NOW, Vec::new());
    for _ in 0..10 {
        let Next::Ask(name, question) = book.next(now) else {
            panic!("nothing is due")
        };
        assert_eq!(
            say(book.answered((&name, question), Answer::Failed, now).as_ref()),
            "nothing"
        );
        // News do not make it faster.
        book.hear(0, there("shop/tls", "9"), now);
        let Next::Wait(at) = book.next(now) else {
            panic!("asked at once")
        };
        waits.push(at.saturating_sub(now).as_millis());
        now = at;
    }
    let longest = [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
    for (wait, longest) in waits.iter().zip(longest) {
        assert!((longest / 2..=longest).contains(wait), "{waits:?}");
    }
    book.want(
        &names(&["shop/tls", "shop/b"]),
        now.saturating_sub(Duration::from_millis(1)),
    );
    let Next::Ask(name, _) = book.next(now) else {
        panic!("nothing is due")
    };
    assert_eq!(name.name, "b");
}

#[test]
fn what_cannot_be_decoded_keeps_what_was_known() {
    let mut book = book();
    book.want(&names(&["shop/tls"]), NOW);
    assert_eq!(look(&mut book, Answer::Unusable("5".to_owned())), "delete");
    book.hear(0, there("shop/tls", "6"), NOW);
    assert_eq!(look(&mut book, found("6")), "put");
    book.hear(0, there("shop/tls", "7"), NOW);
    assert_eq!(look(&mut book, Answer::Unusable("7".to_owned())), "nothing");
    assert_eq!(book.next(NOW), Next::Idle);
}

#[test]
fn names_that_nobody_follows_are_told() {
    let scope = |namespace: &str| Scope {
        namespace: Some(namespace.to_owned()),
        name: None,
    };
    let mut book = Book::new(vec![scope("shop"), scope("blog")], 7);
    let unknown = book.want(&names(&["shop/tls", "blog/tls", "bank/tls", "shop/../x"]), NOW);
    assert_eq!(unknown, [name("bank/tls"), name("shop/../x")]);
    assert_eq!(book.want(&names(&["shop/tls", "blog/tls", "bank/tls"]), NOW), []);
    assert_eq!(look(&mut book, found("1")), "put");
    assert_eq!(look(&mut book, found("1")), "put");
    assert_eq!(book.next(NOW), Next::Idle);
    // A list of one namespace says nothing of another.
    book.hear(1, Look::Begin, NOW);
    book.hear(1, Look::End, NOW);
    assert_eq!(ask(&mut book).0, name("blog/tls"));
    assert_eq!(book.next(NOW), Next::Idle);
}
