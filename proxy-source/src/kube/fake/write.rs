//! Writing, as the API server does it with Events.

use serde_json::Value;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use super::{FakeApi, State, respond, status};

impl FakeApi {
    /// Created once, patched if they are there.
    pub(super) async fn write(
        &self,
        mut stream: BufReader<TcpStream>,
        method: String,
        path: String,
        head: &str,
    ) -> std::io::Result<()> {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let mut body = vec![0; length.unwrap().1.parse().unwrap()];
        stream.read_exact(&mut body).await?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let (code, answer) = {
            let mut state = self.state();
            state.written.push((method.clone(), path.clone(), body.clone()));
            match state.refuse.get("events") {
                Some(code) => (*code, status(*code)),
                None => state.write(&method, &path, &body),
            }
        };
        respond(stream.into_inner(), code, &answer).await
    }
}

impl State {
    fn write(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let path = path.split('?').next().unwrap();
        let name = if method == "POST" {
            body["metadata"]["name"].as_str().unwrap()
        } else {
            path.rsplit('/').next().unwrap()
        };
        let known = self
            .objects
            .entry("events".to_owned())
            .or_default()
            .get(name)
            .cloned();
        match (method, known) {
            ("POST", None) => (201, self.store("events", name, body)),
            ("POST", Some(_)) => (409, status(409)),
            ("PATCH", Some(mut event)) => {
                event["series"] = body["series"].clone();
                (200, self.store("events", name, &event))
            }
            _ => (404, status(404)),
        }
    }
}
