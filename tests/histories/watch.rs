//! Looks at the machines all the time, as a console would, and writes down when each changed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::world::uptime;

/// A machine as it was from this moment on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    pub(crate) at: f64,
    pub(crate) machine: String,
    pub(crate) state: String,
    /// Causes of its being degraded.
    pub(crate) causes: Vec<String>,
}

/// Who looks.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Look>>>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(home: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stopped, looks) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(look(home, &stopped, &looks));
        });
        Self { stop, seen, thread }
    }

    pub(crate) fn finish(self) -> Vec<Look> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn look(home: PathBuf, stop: &AtomicBool, looks: &Mutex<Vec<Look>>) {
    let pause = Duration::from_millis(200);
    let mut link = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(pause).await;
        let Some((_, bus)) = &link else {
            link = crate::world::bus(&home).await.ok();
            continue;
        };
        let Ok(Ok((machines, _))) = tokio::time::timeout(pause * 5, bus.machines()).await else {
            continue;
        };
        let mut looks = looks.lock().unwrap();
        for seen in machines {
            let view = seen.view();
            let look = Look {
                at: uptime(),
                machine: view.machine.to_string(),
                state: format!("{:?}", view.state).to_lowercase(),
                causes: view
                    .degraded
                    .iter()
                    .map(|d| format!("{:?}", d.cause))
                    .collect(),
            };
            let mut before = looks.iter().rev();
            let before = before.find(|one: &&Look| one.machine == look.machine);
            let same = before.is_some_and(|b| b.state == look.state && b.causes == look.causes);
            if !same {
                looks.push(look);
            }
        }
    }
}
