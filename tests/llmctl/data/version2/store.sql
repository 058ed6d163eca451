CREATE TABLE conversation (
    id TEXT PRIMARY KEY, created REAL NOT NULL, updated REAL NOT NULL, title TEXT NOT NULL,
    head INTEGER REFERENCES message (id)
) STRICT;
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
    parent INTEGER REFERENCES message (id), role TEXT NOT NULL, content TEXT NOT NULL,
    created REAL NOT NULL, generation TEXT REFERENCES generation (id) ON DELETE SET NULL
) STRICT;
CREATE INDEX message_conversation ON message (conversation);
CREATE TABLE generation (
    id TEXT PRIMARY KEY,
    conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
    model TEXT NOT NULL, status TEXT NOT NULL, cause TEXT NOT NULL, guarantee TEXT,
    chars INTEGER NOT NULL, tokens INTEGER, reasoning TEXT NOT NULL, details TEXT NOT NULL
) STRICT;
PRAGMA user_version = 2;
INSERT INTO conversation VALUES ('c0', 1.0, 2.0, 'a question', NULL);
INSERT INTO generation
VALUES ('g0', 'c0', 'm', 'complete', 'end', 'exact', 9, 2, 'thoughts', '{"usage": null}');
INSERT INTO message VALUES (1, 'c0', NULL, 'user', 'a question', 1.0, NULL);
INSERT INTO message VALUES (2, 'c0', 1, 'assistant', 'an answer', 2.0, 'g0');
UPDATE conversation SET head = 2 WHERE id = 'c0';
