//! The page of metrics: made once for all who ask meanwhile, and shared by those who read it.

use super::AdminApi;
use crate::prometheus::PageReader;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

/// Pages in memory at a time. While so many are being read, whoever asks gets the newest of them.
pub(super) const PAGES: usize = 2;
const PIECE: usize = 64 << 10;

/// A page, in pieces: so it takes its own length, where a growing text would take up to three times as much.
pub(super) struct Page {
    number: u64,
    reader: PageReader,
    pieces: Vec<Bytes>,
}

impl Page {
    fn write(number: u64, reader: PageReader, api: &dyn AdminApi) -> Page {
        let mut writer = PageWriter::default();
        api.metrics(reader, &mut writer).expect("memory takes everything");
        writer.finish_piece();
        Page { number, reader, pieces: writer.pieces }
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
}

#[derive(Default)]
struct PageWriter {
    pieces: Vec<Bytes>,
    open: String,
}

impl PageWriter {
    fn finish_piece(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(Bytes::from(std::mem::replace(&mut self.open, String::with_capacity(PIECE))));
        }
    }
}

impl fmt::Write for PageWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.open.len() + text.len() > PIECE {
            self.finish_piece();
        }
        self.open.push_str(text);
        Ok(())
    }
}

/// The pages that somebody reads.
pub(super) struct Pages {
    api: Arc<dyn AdminApi>,
    /// Held while a page is made: one at a time.
    read: Arc<Mutex<Vec<Weak<Page>>>>,
    /// Pages that were begun.
    begun: Arc<AtomicU64>,
}

impl Pages {
    pub fn new(api: Arc<dyn AdminApi>) -> Pages {
        Pages { api, read: Arc::default(), begun: Arc::default() }
    }

    /// A page that was begun after this was asked, for such a reader, unless [`PAGES`] are being read. None if it cannot be made.
    pub async fn get(&self, reader: PageReader) -> Option<Arc<Page>> {
        let begun_before = self.begun.load(Relaxed);
        let mut read = self.read.clone().lock_owned().await;
        read.retain(|page| page.strong_count() > 0);
        let is_full = read.len() >= PAGES;
        let shared = |page: &Arc<Page>| page.number > begun_before && page.reader == reader || is_full;
        if let Some(newest) = read.iter().rev().filter_map(Weak::upgrade).find(shared) {
            return Some(newest);
        }
        let (api, begun) = (self.api.clone(), self.begun.clone());
        // The lock goes with the work: whoever asks and goes away does not have two pages made at once.
        let made = tokio::task::spawn_blocking(move || {
            let page = Arc::new(Page::write(begun.fetch_add(1, Relaxed) + 1, reader, api.as_ref()));
            read.push(Arc::downgrade(&page));
            page
        });
        made.await.ok()
    }
}
