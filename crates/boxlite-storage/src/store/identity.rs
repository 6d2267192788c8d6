//! Whether the database and the home it lies in belong together.

use boxlite_home::{Home, HomeIdentity};
use boxlite_types::{Error, Result};

use super::Store;
use super::schema::{Schema, meta};

impl Store {
    /// Opens the database of `home`, creating it if it is missing, and gives both one identity where they have none.
    ///
    /// # Errors
    /// As for [`Store::open`]; `Corrupt` and `Unsupported` also for the home's identity.
    pub fn open_in(home: &Home) -> Result<Self> {
        let identity = HomeIdentity::read(home)?;
        let mut store = Self::open_as(&home.database(), identity.as_ref())?;
        store.home = Some(home.clone());
        if identity.is_none()
            && store.schema == Schema::Current
            && let Some(id) = store.home_id()?.filter(|id| !id.is_empty())
            && let Err(error) = HomeIdentity::publish(home, &id)
        {
            // A full disk, say; the next open tries again.
            tracing::warn!(%error, "the home's identity could not be written");
        }
        Ok(store)
    }

    fn home_id(&self) -> Result<Option<String>> {
        self.read(|transaction| Ok(meta(transaction, "home_id")?))
    }

    /// The id that home and database share; `None` while they have none.
    pub fn shared_id(&self) -> Result<Option<String>> {
        Ok(self.home_id()?.filter(|id| !id.is_empty()))
    }

    /// Why this database's records cannot be believed about the home it lies in, if that is so.
    pub(super) fn stranger(&self) -> Result<Option<String>> {
        let Some(home) = &self.home else { return Ok(None) };
        let Some(identity) = HomeIdentity::read(home)? else { return Ok(None) };
        let own = self.home_id()?.unwrap_or_default();
        if own == identity.id || self.schema == Schema::WithoutIntents {
            return Ok(None);
        }
        let whose = if own.is_empty() { "an older one".to_owned() } else { format!("that of home {own}") };
        Ok(Some(format!(
            "the database is {whose}, and this is home {} (home.json); if they belong together, run `boxlite gc \
             --adopt-home`",
            identity.id
        )))
    }

    /// Declares that this database belongs to the home it lies in: it takes on the home's id.
    ///
    /// # Errors
    /// `ResourceExhausted` on a disk that is full; `Unsupported` for a database without a home.
    pub fn adopt_home(&self) -> Result<()> {
        let home = self.home.as_ref().ok_or_else(|| Error::unsupported("this database has no home"))?;
        let Some(identity) = HomeIdentity::read(home)? else { return Ok(()) };
        self.write(|transaction| {
            transaction.execute("INSERT OR REPLACE INTO meta VALUES ('home_id', ?1)", [&identity.id])?;
            Ok(())
        })
    }
}
