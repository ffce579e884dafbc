//! Takes a request to a backend, and its response back.
//!
//! ```text
//!  endpoint ─▶ connection ─▶ send ─┬─▶ response
//!     ▲                            │ nothing was sent, or twice is no harm
//!     └──── another one ◀──────────┘
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{Patience, Relay, RequestBody, ResponseBody, Transfer};
use crate::clock;
use crate::headers;
use crate::refusal::Refusal;
use crate::request::Found;
use crate::rewrite;
use crate::route::{Balance, Filter, Route, UpstreamProtocol};
use crate::seen::Seen;
use crate::serve::Client;
use crate::tend::Work;
use crate::upgrade::{self, Wish};
use crate::upstream::balance::{self, Choice};
use crate::upstream::connect::{self, Opening};
use crate::upstream::retry::Tries;
use crate::upstream::{Endpoint, Lease, Sent, Upstream};
use crate::worker::Admitted;

/// A request on its way.
struct Way<'a> {
    client: &'a Client,
    seen: &'a Seen,
    route: &'a Route,
    upstream: &'a Upstream,
    protocol: UpstreamProtocol,
    /// What the endpoint is chosen by ([`balance::key`]).
    key: Option<u64>,
    transfer: Option<Arc<Transfer>>,
    /// The client wants another protocol.
    upgrade: bool,
    /// When the whole of it must be over.
    until: Option<Instant>,
}

/// What became of an attempt.
enum Outcome {
    Answer(Response<Incoming>),
    Not(Box<Request<RequestBody>>),
    Lost,
    Slow,
}

/// Forwards a request. `work` is taken along by a response that is still to come.
pub(crate) async fn forward(
    client: &Rc<Client>,
    (mut head, body): (Parts, Incoming),
    found: &Found,
    upstream: Arc<Upstream>,
    (work, admitted): (&mut Option<Work>, Admitted),
) -> Result<Response<ResponseBody>, Refusal> {
    let policy = &found.route.policy;
    if let (Some(limit), Some(length)) = (policy.body_limit, headers::declared_length(&head.headers))
        && length > limit
    {
        return Err(Refusal::LongBody);
    }
    let key = balance::key(&policy.balance, client.address, &head.headers, &head.uri);
    let wish = outgoing(client, &mut head, found)?;
    let patience = Patience {
        grace: client.settings.body_timeout,
        rate: client.settings.body_rate,
    };
    found.seen.sends(&head.headers);
    let (body, transfer) = RequestBody::new(body, policy.body_limit, patience);
    let way = Way {
        client,
        seen: &found.seen,
        route: &found.route,
        upstream: &upstream,
        protocol: upstream
            .protocol
            .or(policy.protocol)
            .unwrap_or(UpstreamProtocol::Http1),
        key,
        transfer,
        upgrade: wish.is_some(),
        until: policy.request_timeout.map(|whole| Instant::now() + whole),
    };
    way.seen.uploads(way.transfer.as_ref());
    let request = Request::from_parts(head, body);
    let attempts = way.attempts(request);
    let (response, lease) = match way.until {
        None => attempts.await?,
        Some(until) => tokio::time::timeout_at(until, attempts)
            .await
            .map_err(|_| Refusal::SlowAnswer)??,
    };
    let (parts, body) = way.incoming(response, &lease);
    let idle = policy.idle_timeout;
    match wish {
        Some(wish) if parts.status == StatusCode::SWITCHING_PROTOCOLS => upgrade::grant(
            (client, &found.seen),
            (work, admitted),
            wish,
            (parts, body),
            (lease, idle),
        ),
        _ if parts.status == StatusCode::SWITCHING_PROTOCOLS => Err(Refusal::BadAnswer),
        _ => Ok(way.respond(Response::from_parts(parts, body), lease, (work, admitted))),
    }
}

/// Makes the head of what is sent from what was received. The maps are the same ones.
fn outgoing(client: &Client, head: &mut Parts, found: &Found) -> Result<Option<Wish>, Refusal> {
    let wish = upgrade::wish(head);
    let hop = headers::strip_request(&mut head.headers)?;
    headers::tell(&mut head.headers, &client.told(), &client.worker.random);
    if let Some(shown) = client.shown.as_ref().and_then(|shown| shown.client.as_ref()) {
        shown.tell(&mut head.headers, found.route.policy.pass_certificate);
    }
    let wish = wish.filter(|wish| hop.upgrade || wish.is_http2());
    if let Some(wish) = &wish {
        wish.ask(head, &client.worker.random);
    }
    let root = PathAndQuery::from_static("/");
    let sent = head.uri.path_and_query().unwrap_or(&root);
    if let Some(target) = rewrite::target(&found.route, sent, found.path.as_deref())? {
        head.uri = Uri::from(target);
    }
    for filter in &found.route.filters {
        match filter {
            Filter::RequestHeaders(edits) => headers::edit(&mut head.headers, edits),
            Filter::RewriteHost(host) => {
                let host = HeaderValue::from_str(host).map_err(|_| Refusal::Host)?;
                head.headers.insert(HOST, host);
            }
            Filter::ResponseHeaders(_) | Filter::RewritePrefix(_) | Filter::RewritePath(_) => (),
        }
    }
    head.version = Version::HTTP_11;
    Ok(wish)
}

impl Way<'_> {
    /// Sends the request until an endpoint answers, or none may be asked any more.
    async fn attempts(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        let policy = &self.route.policy;
        let mut tries = Tries::new(
            &policy.retry,
            request.method(),
            self.transfer.is_some() || self.upgrade,
        );
        let mut again: Option<(Arc<Endpoint>, bool)> = None;
        let mut last = Refusal::NoEndpoint;
        loop {
            let next = again.take().or_else(|| Some((self.pick(&tries)?, false)));
            let (endpoint, fresh) = next.ok_or(last)?;
            let Some(mut lease) = self.connect(&endpoint, fresh).await else {
                last = Refusal::Unreachable;
                if tries.failed(&endpoint) {
                    continue;
                }
                return Err(last);
            };
            self.address(&mut request, &lease)?;
            let (reused, http2) = (lease.is_reused(), lease.is_http2());
            let spare = tries.spare(&request, reused);
            let outcome = self.send(&mut lease, request).await;
            if let Some(fault) = self.transfer.as_ref().and_then(|transfer| transfer.fault())
                && !matches!(outcome, Outcome::Answer(_))
            {
                return Err(fault);
            }
            let slow = matches!(outcome, Outcome::Slow);
            last = if slow {
                Refusal::SlowAnswer
            } else {
                Refusal::BadAnswer
            };
            request = match outcome {
                Outcome::Answer(response) => return Ok((response, lease)),
                Outcome::Not(request) => *request,
                Outcome::Lost | Outcome::Slow => spare.ok_or(last)?.request(),
            };
            self.seen.retried();
            if reused && !slow && tries.renew() {
                again = Some((endpoint, !http2));
            } else if !(if slow {
                tries.timed_out(&endpoint)
            } else {
                tries.failed(&endpoint)
            }) {
                return Err(last);
            }
        }
    }

    fn pick(&self, tries: &Tries<'_>) -> Option<Arc<Endpoint>> {
        self.upstream.pick(&Choice {
            balance: &self.route.policy.balance,
            key: self.key,
            tried: tries.tried(),
            random: self.client.worker.random.next(),
            slow_return: self.client.settings.upstream.slow_return,
        })
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>, fresh: bool) -> Option<Lease> {
        let opening = Opening {
            worker: self.client.worker.id,
            limits: &self.client.settings.upstream,
            timeout: self.route.policy.connect_timeout,
            fresh,
            http1: self.upgrade,
        };
        self.seen.asks(endpoint.address);
        let acquired = connect::acquire(self.upstream, endpoint, self.protocol, opening).await;
        self.seen.connected(&acquired);
        match acquired {
            Ok(lease) => Some(lease),
            Err(error) => {
                let backend = &self.upstream.backend;
                tracing::debug!(endpoint = %endpoint.address, service = %backend.service, %error, "no connection");
                if endpoint.health.failed(clock::now(), opening.limits) {
                    self.client.worker.tally.ejections.one();
                }
                None
            }
        }
    }

    /// Sends it, and waits for the response's head: from the last byte that the client sent, if it sends a body.
    async fn send(&self, lease: &mut Lease, mut request: Request<RequestBody>) -> Outcome {
        self.seen.names_parent(request.headers_mut());
        let measured = matches!(self.route.policy.balance, Balance::PeakEwma).then(Instant::now);
        let sent = self.sent(lease, request).await;
        let Some(sent) = sent else {
            self.seen.fails("timeout");
            return Outcome::Slow;
        };
        match sent {
            Sent::Answer(response) => {
                if let Some(since) = measured {
                    lease.endpoint().load.answered(since.elapsed());
                }
                Outcome::Answer(response)
            }
            Sent::Not(request) => {
                self.seen.fails("connection_closed");
                Outcome::Not(request)
            }
            Sent::Lost(error) => {
                tracing::debug!(service = %self.upstream.backend.service, %error, "no answer");
                self.seen.fails("no_answer");
                Outcome::Lost
            }
        }
    }

    async fn sent(&self, lease: &mut Lease, request: Request<RequestBody>) -> Option<Sent> {
        let mut sending = pin!(lease.send(request));
        let Some(limit) = self.route.policy.response_timeout else {
            return Some(sending.await);
        };
        let mut left = limit;
        loop {
            if let Ok(sent) = tokio::time::timeout(left, sending.as_mut()).await {
                return Some(sent);
            }
            let transfer = self.transfer.as_ref()?;
            let silent = Duration::from_millis(clock::now().saturating_sub(transfer.moved()));
            left = limit.checked_sub(silent).filter(|left| !left.is_zero())?;
        }
    }

    /// Where HTTP/2 has the name in the request line, HTTP/1.1 has it in `Host`.
    fn address(&self, request: &mut Request<RequestBody>, lease: &Lease) -> Result<(), Refusal> {
        let path = request.uri().path_and_query().cloned();
        if !lease.is_http2() {
            if let Some(authority) = request.uri().authority() {
                if !request.headers().contains_key(HOST) {
                    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)?;
                    request.headers_mut().insert(HOST, host);
                }
                *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
            }
            return Ok(());
        }
        let scheme = if self.protocol == UpstreamProtocol::Https {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let authority = match request.headers_mut().remove(HOST) {
            Some(host) => Authority::try_from(host.as_bytes()).map_err(|_| Refusal::Host)?,
            None => match request.uri().authority() {
                Some(authority) => authority.clone(),
                None => {
                    Authority::try_from(lease.endpoint().address.to_string()).map_err(|_| Refusal::Host)?
                }
            },
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
        parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::Path)?;
        *request.version_mut() = Version::HTTP_2;
        Ok(())
    }

    /// The response's head, as the client gets it.
    fn incoming(&self, response: Response<Incoming>, lease: &Lease) -> (http::response::Parts, Incoming) {
        if let Some(transfer) = &self.transfer {
            transfer.answered();
        }
        self.seen.answered(response.status());
        let (mut head, body) = response.into_parts();
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            headers::strip_response(&mut head.headers);
        }
        head.version = Version::HTTP_11;
        for filter in &self.route.filters {
            if let Filter::ResponseHeaders(edits) = filter {
                headers::edit(&mut head.headers, edits);
            }
        }
        if let Balance::Cookie(cookie) = &self.route.policy.balance
            && self.key != Some(lease.endpoint().key)
            && let Ok(value) = HeaderValue::try_from(balance::cookie_for(cookie, lease.endpoint().key))
        {
            head.headers.append(SET_COOKIE, value);
        }
        (head, body)
    }

    fn respond(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        (work, admitted): (&mut Option<Work>, Admitted),
    ) -> Response<ResponseBody> {
        let (head, incoming) = response.into_parts();
        if http_body::Body::is_end_stream(&incoming) {
            lease.give_back();
            return Response::from_parts(head, ResponseBody::empty());
        }
        let Some(work) = work.take() else {
            return Refusal::Busy.answer();
        };
        let relay = Relay {
            incoming,
            lease: Some(lease),
            work,
            _admitted: admitted,
            idle: self.route.policy.idle_timeout,
            timer: None,
            armed: false,
            until: self.until.map(|until| Box::pin(tokio::time::sleep_until(until))),
            transfer: self.transfer.clone(),
        };
        Response::from_parts(head, ResponseBody::relay(relay))
    }
}
