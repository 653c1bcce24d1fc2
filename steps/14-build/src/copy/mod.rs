//! `COPY` and `ADD`: files become a layer.
