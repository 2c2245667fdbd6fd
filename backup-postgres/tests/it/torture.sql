-- A schema of our own with what dumps stumble over. Runs as a superuser in an empty UTF-8 database of PostgreSQL 15 or newer;
-- the roles "torture owner" and torture_reader exist. Every object is there because some tool once lost it.
SET client_min_messages = warning;
COMMENT ON SCHEMA public IS 'it''s the "public" one; \ DROP TABLE x; --';
CREATE SCHEMA "odd schema.with ""quotes"" and
a newline" AUTHORIZATION "torture owner";
CREATE SCHEMA "select";
GRANT USAGE ON SCHEMA "select" TO torture_reader;

-- Types: enums with odd labels and an order of their own, domains over domains with checks, composites, ranges.
CREATE TYPE public.mood AS ENUM ('sad', 'it''s ok', 'happy 😀', '');
ALTER TYPE public.mood ADD VALUE 'between' BEFORE 'happy 😀';
CREATE DOMAIN public.positive AS int CONSTRAINT "more than 0" CHECK (VALUE > 0);
CREATE DOMAIN public.small_positive AS public.positive DEFAULT 7 CHECK (VALUE < 1000);
CREATE DOMAIN public.json_object AS jsonb CHECK (jsonb_typeof(VALUE) = 'object');
CREATE TYPE public.point3 AS (x double precision, y numeric(10, 3), label text);
CREATE TYPE public.span AS RANGE (subtype = timestamptz);
CREATE COLLATION public.plain FROM "C";

-- Every column type that has its own text.
CREATE TABLE public.everything (
    id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5) PRIMARY KEY,
    small smallint, mid int, big bigint, num numeric, num2 numeric(20, 5), r real, d double precision,
    m money, t text COLLATE public.plain, v varchar(40), c char(6), b bytea, ts timestamp, tz timestamptz, da date, ti time, tt timetz,
    iv interval, bo boolean, mo public.mood, sp public.small_positive, p3 public.point3, pa public.point3[],
    u uuid, ip inet, ci cidr, ma macaddr, bi bit(5), vb bit varying, j json, jb jsonb, jo public.json_object, tv tsvector, tq tsquery,
    ia int[], ta text[][], ma2 public.mood[], ir int4range, mr int4multirange, sr public.span, pt point, po polygon, rc regclass, rt regtype, oi oid,
    nm name, lsn pg_lsn, ch "char"
);
INSERT INTO public.everything (small, mid, big, num, num2, r, d, m, t, v, c, b, ts, tz, da, ti, tt, iv, bo, mo, sp, p3, pa, u, ip, ci, ma, bi, vb, j, jb, jo, tv, tq,
    ia, ta, ma2, ir, mr, sr, pt, po, rc, rt, oi, nm, lsn, ch)
VALUES
 (-32768, -2147483648, -9223372036854775808, 'NaN', -0.00001, 'NaN', '-Infinity', '-12.34', E'tab\there\nnewline\\backslash\\N \\. \r\f\v\b', 'ü', 'ab', '\x00ff5c0a5c4e',
  '0044-03-15 12:00:00 BC', '294276-12-31 23:59:59.999999+00', 'infinity', '24:00:00', '23:59:59.999999-15:59', '-1 year 2 mons -3 days 04:05:06.789', true, 'it''s ok', 999,
  ROW(1e-300, 1.5, 'a "quoted", (comma)'), ARRAY[ROW(1, 2, NULL)::public.point3, NULL], 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', B'10101', B'',
  '{"b": 1,   "a": [1.0, "\u00e9\\"]}', '{"b": 1, "a": [1.0, 1e400, "😀"]}', '{}', 'a:1A fat:2B', 'fat & rat', '{1,NULL,3}', '{{"a,b",NULL},{"","}"}}', '{sad,"",NULL}',
  '[1,10)', '{[1,2),[5,6)}', '["2026-01-01 00:00:00+00",)', '(1e-7,2)', '((0,0),(1,1),(2,0))', 'public.everything', 'public.mood', 4294967295, 'name', '16/B374D848', '\'),
 (NULL, 0, 0, 'Infinity', 0, 1.17549435e-38, 0.1, 0, '', '', '', '', 'epoch', 'epoch', '4714-11-24 BC', '00:00', '00:00+00', '0', false, 'sad', 1, NULL, '{}', NULL, NULL, NULL, NULL, NULL, B'1',
  'null', 'null', '{"k": null}', '', NULL, '{}', '{}', '{}', 'empty', '{}', 'empty', '(NaN,Infinity)', NULL, NULL, NULL, 0, '', '0/0', 'a'),
 (1, 1, 1, 123456789012345678901234567890.123456789, 1, 3.4028235e38, 1.7976931348623157e308, 1, 'é combining ' || chr(769) || chr(65279) || chr(8238), repeat('😀', 40), 'abcdef', decode(repeat('00', 3000), 'hex'),
  now(), now(), now(), now(), now(), '178000000 years', NULL, 'happy 😀', 5, ROW(NULL, NULL, NULL), NULL, NULL, '1.2.3.4', '::/0', NULL, B'00000', NULL, '"\\"', '"x"', NULL, NULL, NULL,
  '[2:3]={1,2}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'integer', NULL, NULL, NULL, NULL);

-- Servers without libxml have the type and no values of it.
CREATE TABLE public.documents (x xml);
DO $$ BEGIN INSERT INTO public.documents VALUES ('<a>&amp;</a>'), ('text <b/>'), (''); EXCEPTION WHEN feature_not_supported THEN NULL; END $$;

-- Names: quotes, newlines, 63 bytes of unicode, reserved words, what looks like a flag or a psql command.
CREATE TABLE "odd schema.with ""quotes"" and
a newline"."table ""x"" 'y' \ $1 %s
; DROP TABLE public.everything; --" ("select" int, "co""l" text DEFAULT 'a''b', " " int, "new
line" int, "\N" text, "ÄÖÜäöüßéèêÄÖÜäöüßéèêÄÖÜäöüßéèêx" int);
INSERT INTO "odd schema.with ""quotes"" and
a newline"."table ""x"" 'y' \ $1 %s
; DROP TABLE public.everything; --" VALUES (1, 'x', 2, 3, '\N', 4), (NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE "select"."from" ("table" int PRIMARY KEY, "user" text, "order" text);
INSERT INTO "select"."from" VALUES (1, 'a', 'b');
GRANT SELECT ("table", "user"), UPDATE ("order") ON "select"."from" TO torture_reader;
CREATE TABLE "select"."\connect postgres" (a text);
INSERT INTO "select"."\connect postgres" VALUES ('\.'), ('\connect'), (E'\\.\n\\.'), ('COPY x FROM stdin;');
CREATE TABLE "select"."--flag" (a int);
CREATE TABLE "select"."a.b" ("c.d" int);
CREATE SCHEMA "select.a";
CREATE TABLE "select.a".b ("c.d" int);
INSERT INTO "select"."a.b" VALUES (1);
INSERT INTO "select.a".b VALUES (2), (3);
CREATE TABLE public."UPPER lower" ("Id" serial, "MiXeD" text);
INSERT INTO public."UPPER lower" ("MiXeD") VALUES ('a'), ('b');

-- Shapes: no columns, no rows, dropped columns, only generated columns, unlogged, typed, wide.
CREATE TABLE public.no_columns ();
INSERT INTO public.no_columns DEFAULT VALUES;
INSERT INTO public.no_columns DEFAULT VALUES;
CREATE TABLE public.no_rows (a int, b text);
CREATE TABLE public.dropped (a int, gone text, b int, gone_too int, c text);
INSERT INTO public.dropped SELECT i, 'x', i * 2, i, 'c' || i FROM generate_series(1, 100) i;
ALTER TABLE public.dropped DROP COLUMN gone, DROP COLUMN gone_too;
ALTER TABLE public.dropped ADD COLUMN later int DEFAULT 42;
ALTER TABLE public.dropped ADD COLUMN "virtual?" int GENERATED ALWAYS AS (a + b) STORED;
CREATE TABLE public.only_dropped (a int);
INSERT INTO public.only_dropped VALUES (1), (2), (3);
ALTER TABLE public.only_dropped DROP COLUMN a;
CREATE TABLE public.only_generated (a int GENERATED ALWAYS AS (7) STORED);
INSERT INTO public.only_generated DEFAULT VALUES;
CREATE UNLOGGED TABLE public.not_logged (a int PRIMARY KEY, b text);
INSERT INTO public.not_logged SELECT i, md5(i::text) FROM generate_series(1, 50) i;
CREATE TABLE public.typed OF public.point3 (x WITH OPTIONS NOT NULL);
INSERT INTO public.typed VALUES (1, 2, 'three');
CREATE TABLE public.generated (a int GENERATED BY DEFAULT AS IDENTITY, b int, c int GENERATED ALWAYS AS (b * 2) STORED, d text GENERATED ALWAYS AS (b::text || 'x') STORED);
INSERT INTO public.generated (b) SELECT i FROM generate_series(1, 10) i;
CREATE TABLE public.toasted (id int, big text, raw bytea);
ALTER TABLE public.toasted ALTER big SET STORAGE EXTENDED, ALTER raw SET STORAGE EXTERNAL, ALTER big SET STATISTICS 77, ALTER id SET (n_distinct = -0.5);
INSERT INTO public.toasted SELECT i, repeat(md5(i::text), 2000), decode(repeat(md5(i::text), 1000), 'hex') FROM generate_series(1, 40) i;
INSERT INTO public.toasted VALUES (0, NULL, NULL);
ALTER TABLE public.toasted SET (fillfactor = 70, autovacuum_enabled = off);

-- Large and scattered enough to be cut into ranges, with holes.
CREATE TABLE public.events (id bigint PRIMARY KEY, at timestamptz NOT NULL, who text, what jsonb, note text);
INSERT INTO public.events SELECT i, '2026-01-01'::timestamptz + i * interval '1 second', 'user ' || i % 17, jsonb_build_object('n', i, 'text', md5(i::text)), repeat('x', (i % 97)::int)
  FROM generate_series(1, 20000) i;
DELETE FROM public.events WHERE id % 7 = 0 OR id BETWEEN 3000 AND 6000;
UPDATE public.events SET note = 'updated' WHERE id % 11 = 0;
CREATE INDEX "events by who ""quoted""" ON public.events (who COLLATE "C" DESC NULLS LAST) INCLUDE (at) WHERE who <> 'user 3';
CREATE INDEX events_expression ON public.events ((what ->> 'text'), lower(who));
CREATE INDEX events_gin ON public.events USING gin (what jsonb_path_ops);
CREATE STATISTICS public.events_stats (dependencies, ndistinct) ON who, note FROM public.events;
ALTER TABLE public.events CLUSTER ON events_pkey;

-- Partitions: by range with a default, by list under a range, by hash, by hash of an enum (its rows hash elsewhere after a restore), attached with other column order.
CREATE TABLE public.parted (day date NOT NULL, kind text, n int, CONSTRAINT parted_check CHECK (n >= 0)) PARTITION BY RANGE (day);
CREATE TABLE public.parted_2025 PARTITION OF public.parted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE public.parted_2026 PARTITION OF public.parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (kind);
CREATE TABLE public."parted 2026 a,b" PARTITION OF public.parted_2026 FOR VALUES IN ('a', 'b''s');
CREATE TABLE public.parted_2026_rest PARTITION OF public.parted_2026 DEFAULT;
CREATE TABLE public.parted_attached (n int CONSTRAINT parted_check CHECK (n >= 0), gone int, kind text, day date NOT NULL);
ALTER TABLE public.parted_attached DROP COLUMN gone;
ALTER TABLE public.parted ATTACH PARTITION public.parted_attached FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
CREATE TABLE public.parted_rest PARTITION OF public.parted DEFAULT;
INSERT INTO public.parted SELECT '2024-06-01'::date + i * 10, (ARRAY['a', 'b''s', 'c', ''])[1 + i % 4], i FROM generate_series(0, 150) i;
ALTER TABLE public.parted ADD PRIMARY KEY (day, n, kind);
CREATE INDEX ON public.parted (kind);
CREATE TABLE public.hashed (id int, t text) PARTITION BY HASH (id);
CREATE TABLE public.hashed_0 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE public.hashed_1 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO public.hashed SELECT i, md5(i::text) FROM generate_series(1, 100) i;
CREATE TABLE public.by_mood (m public.mood, n int) PARTITION BY HASH (m);
CREATE TABLE public.by_mood_0 PARTITION OF public.by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE public.by_mood_1 PARTITION OF public.by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE public.by_mood_2 PARTITION OF public.by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO public.by_mood SELECT m, n FROM unnest(enum_range(NULL::public.mood)) m, generate_series(1, 5) n;

-- Inheritance, with a column of two parents and rows in all of them.
CREATE TABLE public.parent (a int, b text DEFAULT 'parent', CONSTRAINT only_here CHECK (a > -1) NO INHERIT);
CREATE TABLE public.other_parent (b text, z int);
CREATE TABLE public.child (c int, b text DEFAULT 'child') INHERITS (public.parent, public.other_parent);
INSERT INTO public.parent VALUES (1, 'p');
INSERT INTO public.other_parent VALUES ('o', 1);
INSERT INTO public.child (a, b, z, c) VALUES (-5, 'c', 2, 3);

-- Foreign keys in a cycle and to itself, deferred, not validated, onto a partitioned table.
CREATE TABLE public.hen (id int PRIMARY KEY, egg int);
CREATE TABLE public.egg (id int PRIMARY KEY, hen int REFERENCES public.hen ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED);
INSERT INTO public.hen VALUES (1, 10), (2, 20);
INSERT INTO public.egg VALUES (10, 2), (20, 1);
ALTER TABLE public.hen ADD CONSTRAINT "hen's egg" FOREIGN KEY (egg) REFERENCES public.egg;
CREATE TABLE public.tree (id int PRIMARY KEY, parent int REFERENCES public.tree, CONSTRAINT no_self CHECK (id <> parent), EXCLUDE USING btree (id WITH =));
INSERT INTO public.tree VALUES (3, NULL), (2, 3), (1, 2);
ALTER TABLE public.no_rows ADD CONSTRAINT later_checked CHECK (a > 0) NOT VALID;
CREATE TABLE public.refers (day date, n int, kind text, FOREIGN KEY (day, n, kind) REFERENCES public.parted);
INSERT INTO public.refers SELECT day, n, kind FROM public.parted LIMIT 5;

-- Functions, aggregates, operators, casts, triggers (one disabled), rules, event triggers, views on views, materialized views (one empty).
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.note := coalesce(NEW.note, '') || ' $$touched$$'; RETURN NEW; END $f$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE OF note ON public.events FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION public.touch();
CREATE TRIGGER "off" BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION public.touch();
ALTER TABLE public.events DISABLE TRIGGER "off";
CREATE FUNCTION public.is_even(n int) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT n % 2 = 0';
CREATE FUNCTION public.many(a int, VARIADIC b text[] DEFAULT '{}', OUT c int, OUT d text) RETURNS SETOF record LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$ SELECT 1, 'x' $$;
CREATE PROCEDURE public.proc(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := a + 1; END $$;
REVOKE ALL ON FUNCTION public.is_even(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.is_even(int) TO torture_reader WITH GRANT OPTION;
CREATE TABLE public.checked_by_function (n int CHECK (public.is_even(n)));
INSERT INTO public.checked_by_function VALUES (2), (4);
CREATE AGGREGATE public.product(double precision) (SFUNC = float8mul, STYPE = double precision, INITCOND = '1');
CREATE OPERATOR public.=~= (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = OPERATOR(public.=~=));
CREATE FUNCTION public.mood_to_int(public.mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
CREATE CAST (public.mood AS int) WITH FUNCTION public.mood_to_int(public.mood);
CREATE VIEW public.even AS SELECT id, who FROM public.events WHERE public.is_even(id::int);
CREATE VIEW public.even_more WITH (security_barrier) AS SELECT * FROM public.even WHERE id > 10 WITH LOCAL CHECK OPTION;
CREATE RULE "no ""deletes""" AS ON DELETE TO public.tree DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW public.summary AS SELECT who, count(*) AS n FROM public.events GROUP BY who;
CREATE UNIQUE INDEX ON public.summary (who);
CREATE MATERIALIZED VIEW public.of_summary AS SELECT sum(n) FROM public.summary;
CREATE MATERIALIZED VIEW public.unfilled AS SELECT * FROM public.events WITH NO DATA;
CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more tables'; END $$;

-- Sequences: not begun, begun, set back, descending, of other types, exhausted.
CREATE SEQUENCE public.not_begun START 5;
CREATE SEQUENCE public.begun AS smallint INCREMENT -3 MINVALUE -1000 MAXVALUE 0 START 0 CACHE 5 CYCLE;
SELECT nextval('public.begun'), nextval('public.begun');
CREATE SEQUENCE public."it's ""a"" sequence";
SELECT setval('public."it''s ""a"" sequence"', 4611686018427387904, true);
CREATE SEQUENCE public.set_back START 1;
SELECT setval('public.set_back', 9, false);
SELECT nextval('public."UPPER lower_Id_seq"');

-- Row security, on and forced; rights, default rights, comments on everything.
CREATE TABLE public.secured (id int, owner name);
ALTER TABLE public.secured OWNER TO "torture owner";
INSERT INTO public.secured VALUES (1, 'torture owner'), (2, 'someone else'), (3, 'torture_reader');
ALTER TABLE public.secured ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.secured FORCE ROW LEVEL SECURITY;
CREATE POLICY "own ""rows""" ON public.secured AS RESTRICTIVE FOR SELECT TO torture_reader USING (owner = current_user);
CREATE POLICY writes ON public.secured FOR INSERT WITH CHECK (id > 0);
GRANT SELECT, INSERT ON public.secured TO torture_reader WITH GRANT OPTION;
GRANT SELECT ON public.even TO PUBLIC;
REVOKE ALL ON public.no_rows FROM postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE "torture owner" IN SCHEMA public GRANT SELECT ON TABLES TO torture_reader;
COMMENT ON TABLE public.events IS E'line one\nline two \\ ''quoted'' -- \\connect';
COMMENT ON COLUMN public.events.who IS 'who? 😀';
COMMENT ON CONSTRAINT "hen's egg" ON public.hen IS 'which was first';
COMMENT ON INDEX public.events_gin IS 'an index';
COMMENT ON FUNCTION public.touch() IS 'a function';
COMMENT ON TYPE public.mood IS 'a type';
COMMENT ON DOMAIN public.positive IS 'a domain';
COMMENT ON TRIGGER touch ON public.events IS 'a trigger';
COMMENT ON POLICY writes ON public.secured IS 'a policy';
COMMENT ON SEQUENCE public.begun IS 'a sequence';
COMMENT ON VIEW public.even IS 'a view';

-- Large objects: empty, small, several pieces long, sparse, owned by another, with rights and a comment.
SELECT lo_create(70001);
SELECT lo_from_bytea(70002, '\x00ff0a5c27');
SELECT lo_from_bytea(70003, decode(repeat(md5('x'), 20000), 'hex'));
SELECT lo_put(lo_create(70004), 400000, '\x01');
SELECT lo_from_bytea(70005, decode(repeat('ab', 131072), 'hex'));
ALTER LARGE OBJECT 70002 OWNER TO "torture owner";
GRANT SELECT ON LARGE OBJECT 70003 TO torture_reader;
COMMENT ON LARGE OBJECT 70003 IS 'a picture';

-- Text search, publications, and last what would stop everything after it.
CREATE TEXT SEARCH CONFIGURATION public.ours (COPY = simple);
CREATE PUBLICATION ours FOR TABLE public.events (id, who) WHERE (id > 0), public.hen;
CREATE EVENT TRIGGER "no ""ddl""" ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION public.on_ddl();
