//! Writing, as the API server does it: created once, replaced in the version that was read, patched by merging.

use serde_json::Value;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use super::{FakeApi, Path, State, respond, status};

impl FakeApi {
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
            let parsed = Path::read(&path, false);
            state.written.push((method.clone(), path, body.clone()));
            match state.refusal_of_write(&parsed) {
                Some(code) => (code, status(code)),
                None => state.write(&method, &parsed, &body),
            }
        };
        self.changed.send_replace(());
        respond(stream.into_inner(), code, &answer).await
    }
}

impl State {
    fn refusal_of_write(&mut self, path: &Path) -> Option<u16> {
        let key = format!(
            "{}/{}",
            path.plural,
            path.subresource.as_deref().unwrap_or_default()
        );
        let once = self.refuse_once.iter().position(|(known, _)| *known == key);
        once.map(|at| self.refuse_once.remove(at).1)
            .or_else(|| self.refusal(path))
    }

    fn write(&mut self, method: &str, path: &Path, body: &Value) -> (u16, Value) {
        if method == "POST" {
            let name = body["metadata"]["name"].as_str().unwrap();
            let all = self.objects.entry(path.plural.clone()).or_default();
            if all.contains_key(name) {
                return (409, status(409));
            }
            return (201, self.told("ADDED", &path.plural, name, body));
        }
        let Some((key, mut object)) = self.find(path) else {
            return (404, status(404));
        };
        match method {
            "PUT" => {
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                if version(body) != version(&object) {
                    return (409, status(409));
                }
                object = body.clone();
            }
            "PATCH" => merge(&mut object, body),
            _ => return (405, status(405)),
        }
        (200, self.told("MODIFIED", &path.plural, &key, &object))
    }

    fn told(&mut self, what: &str, plural: &str, key: &str, object: &Value) -> Value {
        let object = self.store(plural, key, object);
        self.tell(plural, serde_json::json!({"type": what, "object": object}));
        object
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = serde_json::json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name.as_str()], value);
        }
    }
}
