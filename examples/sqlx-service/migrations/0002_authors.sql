ALTER TABLE notes ADD COLUMN author TEXT;
CREATE INDEX notes_author ON notes (author);
