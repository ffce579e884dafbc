//! What only the maps know, read when somebody asks: nobody pays for it otherwise.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Error, IntCounter};
use proxy_common::maps as names;
use proxy_daemon::metrics::number;

use super::Metrics;
use crate::kernel::{Maps, Pins};

/// Metrics with handles on the maps.
pub struct Scraper {
    metrics: Arc<Metrics>,
    pins: Pins,
    /// Handles of its own: the loop's are the loop's.
    maps: Mutex<Option<Maps>>,
}

impl Scraper {
    /// Over the maps that are pinned there.
    pub fn new(metrics: Arc<Metrics>, pins: Pins) -> Self {
        Self {
            metrics,
            pins,
            maps: Mutex::new(None),
        }
    }

    /// The metrics themselves.
    pub fn shared_metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Everything, as text. Walks over the maps: not for the thread that answers probes.
    pub fn text(&self) -> Result<String, Error> {
        if let Err(what) = self.read_maps() {
            self.metrics.unreadable.inc();
            tracing::debug!("the maps cannot be read for metrics: {what}");
        }
        self.metrics.text()
    }

    fn read_maps(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let maps = match &mut *maps {
            Some(maps) => maps,
            none => none.insert(Maps::open(&self.pins)?),
        };
        for (reason, count) in maps.counters()? {
            raise(&self.metrics.packets.with_label_values(&[reason.name()]), count);
        }
        let serving = usize::try_from(self.metrics.backends.get()).unwrap_or(0);
        for fill in maps.fill_with(serving)? {
            self.metrics
                .rows
                .with_label_values(&[fill.map])
                .set(number(fill.used));
            let capacity = self.metrics.capacity.with_label_values(&[fill.map]);
            capacity.set(number(fill.capacity));
            // Both directions have a row.
            let connections = number(fill.used.div_ceil(2));
            match fill.map {
                names::FLOWS => self.metrics.flows.set(connections),
                names::HALF_OPEN => self.metrics.half_open.set(connections),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The kernel counts; a counter here follows. Only one scrape runs at a time: the maps are locked.
fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}
