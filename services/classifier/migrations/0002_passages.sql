-- A process's knowledge, to be searched by words, by meaning, and by the labels that answer it.

-- Every passage that a proposal may have seen. Rows stay: a source that changed has a new one.
CREATE TABLE passages (
    passage_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    process    text NOT NULL,
    source     text NOT NULL,
    version    text NOT NULL,                      -- digest of the file
    digest     text NOT NULL,                      -- of what it is found by: the file, its stems and its embedding
    content    jsonb NOT NULL,
    added_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at timestamptz
);
CREATE UNIQUE INDEX passages_current ON passages (process, source) WHERE removed_at IS NULL;

-- One row a process; whoever writes its knowledge holds it locked.
CREATE TABLE knowledge (
    process        text PRIMARY KEY,
    index_version  text NOT NULL DEFAULT '',
    passages       integer NOT NULL DEFAULT 0,
    terms          bigint NOT NULL DEFAULT 0,      -- the lengths of all passages together
    k1             double precision NOT NULL DEFAULT 0,      -- by which impacts were computed, as was …
    b              double precision NOT NULL DEFAULT 0,
    impacts_length double precision NOT NULL DEFAULT 0       -- … the average length
);

CREATE TABLE searchable (
    passage_id integer PRIMARY KEY REFERENCES passages,
    process    text NOT NULL,
    language   text NOT NULL,
    brand      text NOT NULL,
    intents    text[] NOT NULL,
    length     integer NOT NULL,                   -- in terms, each as often as it occurs
    terms      integer[] NOT NULL,                 -- as in postings, to score a passage by itself
    times      smallint[] NOT NULL,
    embedding  public.halfvec(256) NOT NULL        -- of unit length, or zeros
);
CREATE INDEX searchable_by_process ON searchable (process, language, brand);
CREATE INDEX searchable_by_intent ON searchable USING gin (intents);
CREATE INDEX searchable_by_meaning ON searchable USING hnsw (embedding public.halfvec_ip_ops);

CREATE TABLE terms (
    term_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    process  text NOT NULL,
    term     text NOT NULL,                        -- language and stem: `de:liefer`
    passages integer NOT NULL,                     -- that hold it
    UNIQUE (process, term)
);

-- `impact` is what a term's score in a passage grows by, short of the term's own weight, for passages of the average
-- length as it was. It says what can be left unread; scores are computed from the counts.
CREATE TABLE postings (
    passage_id integer NOT NULL,
    term_id    integer NOT NULL,
    times      integer NOT NULL,
    length     integer NOT NULL,
    impact     real NOT NULL,
    PRIMARY KEY (passage_id, term_id)
);
CREATE INDEX postings_by_impact ON postings (term_id, impact DESC) INCLUDE (passage_id, times, length);

CREATE FUNCTION impact_of(
    times integer, length integer, k1 double precision, b double precision, average double precision
) RETURNS real LANGUAGE sql IMMUTABLE AS $$
    SELECT (times / (times + k1 * (1::float8 - b) + k1 * b * length / average))::real
$$;

-- BM25 of some passages as Lucene computes it: what is known of each, and what further terms add. `base` and `slope`
-- are the share of a passage's length in it.
CREATE FUNCTION score_words(
    chosen integer[], known double precision[], ids integer[], weights double precision[],
    base double precision, slope double precision, brands text[]
) RETURNS TABLE (found_id integer, found_score double precision) LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT s.passage_id, c.known + coalesce((
        SELECT sum(a.weight * s.times[a.at] / (s.times[a.at] + base + slope * s.length))
        FROM (SELECT u.weight, array_position(s.terms, u.term_id) AS at FROM unnest(ids, weights) u (term_id, weight)) a
    ), 0::float8)
    FROM unnest(chosen, known) c (passage_id, known)
    JOIN searchable s ON s.passage_id = c.passage_id AND s.brand = ANY (brands)
$$;

-- The `wanted` best by words, best first, exactly, though most postings of a usual question are left unread (MaxScore):
-- so many passages have at least the score `reached`. Of the most frequent terms postings are read only where they add
-- more than the term's `cut`. All cuts together stay below what is reached, so whoever reaches it has a posting above a
-- cut. Where there are many of these, terms that were cut are read after all, the least frequent first: that leaves
-- those who can still have enough. They are looked up in the order of what they can have at most, until nobody can. Of
-- a long question the 64 rarest terms count. Constants are double precision: numeric ones make this five times slower.
CREATE FUNCTION search_words(of_process text, asked text[], brands text[], wanted integer)
RETURNS TABLE (found_id integer, found_score double precision) LANGUAGE plpgsql STABLE ROWS 50 AS $$
DECLARE
    few       CONSTANT integer := 10000;           -- so many postings are read without asking whether they need be
    dear      CONSTANT integer := 20;              -- so many postings are read while one passage is looked up
    slack     CONSTANT double precision := 0.999999;    -- for what is lost in rounding
    base      double precision;
    slope     double precision;
    widened   double precision;                    -- how much an impact may have grown with the average length
    ids       integer[];                           -- the most frequent term first, as in the following
    weights   double precision[];
    held      bigint[];
    unread    bigint;
    tops      double precision[];
    cuts      double precision[];
    aboves    real[];
    cut_last  integer := 0;
    left_over double precision;
    reached   double precision := 0;
    chosen    integer[];
    known     double precision[];
    most      double precision[];
    best      integer[];
    scores    double precision[];
    place     integer := 1;
    ahead     integer := 2 * wanted;
BEGIN
    SELECT array_agg(t.term_id ORDER BY t.passages DESC, t.term_id),
           array_agg(t.weight ORDER BY t.passages DESC, t.term_id),
           array_agg(t.passages ORDER BY t.passages DESC, t.term_id),
           sum(t.passages), min(t.base), min(t.slope), min(t.widened)
    INTO ids, weights, held, unread, base, slope, widened
    FROM (
        SELECT t.term_id, t.passages, k.k1 * (1::float8 - k.b) AS base, k.k1 * k.b * k.passages / k.terms AS slope,
               greatest(1::float8, k.terms::float8 / k.passages / k.impacts_length) / slack AS widened,
               a.times * ln(1::float8 + (k.passages - t.passages + 0.5::float8) / (t.passages + 0.5::float8)) AS weight
        FROM (SELECT word, count(*) AS times FROM unnest(asked) word GROUP BY word) a
        JOIN terms t ON t.process = of_process AND t.term = a.word
        JOIN knowledge k ON k.process = t.process
        ORDER BY t.passages, t.term_id LIMIT 64
    ) t;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    cuts := array_fill(0::float8, ARRAY[cardinality(ids)]);
    aboves := array_fill(0::real, ARRAY[cardinality(ids)]);

    IF unread > few THEN
        SELECT array_agg(a.weight * top.impact * widened ORDER BY a.place) INTO tops
        FROM unnest(ids, weights) WITH ORDINALITY a (term_id, weight, place)
        CROSS JOIN LATERAL (
            SELECT p.impact FROM postings p WHERE p.term_id = a.term_id ORDER BY p.impact DESC LIMIT 1
        ) top;
        SELECT array_agg(c.passage_id), array_fill(0::float8, ARRAY[count(*)::integer]) INTO chosen, known FROM (
            SELECT p.passage_id
            FROM unnest(ids, weights) a (term_id, weight)
            CROSS JOIN LATERAL (
                SELECT p.passage_id, p.times, p.length FROM postings p
                WHERE p.term_id = a.term_id ORDER BY p.impact DESC LIMIT 4 * wanted
            ) p
            GROUP BY p.passage_id
            ORDER BY sum(a.weight * p.times / (p.times + base + slope * p.length)) DESC LIMIT 2 * wanted
        ) c;
        SELECT coalesce(min(f.found_score), 0) INTO reached FROM (
            SELECT s.found_score FROM score_words(chosen, known, ids, weights, base, slope, brands) s
            ORDER BY s.found_score DESC OFFSET wanted - 1 LIMIT 1
        ) f;
        left_over := reached * slack;
        WHILE unread > few AND left_over > 0 LOOP
            cut_last := cut_last + 1;
            unread := unread - held[cut_last];
            cuts[cut_last] := least(tops[cut_last], left_over);
            aboves[cut_last] := CASE
                WHEN left_over < tops[cut_last] THEN left_over / weights[cut_last] / widened ELSE 'infinity' END;
            left_over := left_over - cuts[cut_last];
        END LOOP;
    END IF;

    SELECT array_agg(r.passage_id ORDER BY r.most DESC), array_agg(r.known ORDER BY r.most DESC),
           array_agg(r.most ORDER BY r.most DESC)
    INTO chosen, known, most
    FROM (
        SELECT p.passage_id, coalesce(sum(p.score) FILTER (WHERE p.place > cut_last), 0::float8) AS known,
               sum(p.score - p.cut) + (SELECT sum(c) FROM unnest(cuts) c) AS most
        FROM (
            SELECT p.passage_id, a.place, a.cut, a.weight * p.times / (p.times + base + slope * p.length) AS score
            FROM unnest(ids, weights, cuts, aboves) WITH ORDINALITY a (term_id, weight, cut, above, place)
            JOIN postings p ON p.term_id = a.term_id AND p.impact >= a.above
            WHERE a.above < 'infinity'
        ) p
        GROUP BY p.passage_id
    ) r
    WHERE r.most >= reached * slack;
    WHILE cut_last > 0 AND held[cut_last] < dear * cardinality(chosen) LOOP
        left_over := (SELECT coalesce(sum(c), 0::float8) FROM unnest(cuts[:cut_last - 1]) c);
        SELECT array_agg(r.passage_id ORDER BY r.known DESC), array_agg(r.known ORDER BY r.known DESC),
               array_agg(r.known + left_over ORDER BY r.known DESC)
        INTO chosen, known, most
        FROM (
            SELECT c.passage_id, c.known + weights[cut_last]
                       * coalesce(p.times / (p.times + base + slope * p.length), 0::float8) AS known
            FROM unnest(chosen, known) c (passage_id, known)
            LEFT JOIN postings p ON p.passage_id = c.passage_id AND p.term_id = ids[cut_last]
        ) r
        WHERE r.known + left_over >= reached * slack;
        cut_last := cut_last - 1;
    END LOOP;
    WHILE place <= cardinality(chosen) AND most[place] >= reached * slack LOOP
        SELECT array_agg(b.found_id ORDER BY b.found_score DESC, b.found_id),
               array_agg(b.found_score ORDER BY b.found_score DESC, b.found_id)
        INTO best, scores
        FROM (
            SELECT s.found_id, s.found_score
            FROM score_words(
                chosen[place : place + ahead - 1], known[place : place + ahead - 1],
                ids[:cut_last], weights[:cut_last], base, slope, brands
            ) s
            UNION ALL SELECT * FROM unnest(best, scores)
            ORDER BY 2 DESC, 1 LIMIT wanted
        ) b;
        IF cardinality(best) = wanted THEN
            reached := greatest(reached, scores[wanted]);
        END IF;
        place := place + ahead;
        ahead := 2 * ahead;
    END LOOP;
    RETURN QUERY SELECT * FROM unnest(best, scores);
END $$;

-- The `wanted` nearest by cosine, best first. The scan goes on until so many fit the filters, or 20,000 were looked at.
CREATE FUNCTION search_meaning(
    of_process text, asked public.halfvec, brands text[], languages text[], wanted integer
) RETURNS TABLE (found_id integer, likeness double precision) LANGUAGE plpgsql STABLE ROWS 50
SET hnsw.iterative_scan = strict_order SET hnsw.ef_search = 100 AS $$
BEGIN
    RETURN QUERY
        SELECT s.passage_id, -(s.embedding OPERATOR(public.<#>) asked) FROM searchable s
        WHERE s.process = of_process AND s.brand = ANY (brands) AND s.language = ANY (languages)
        ORDER BY s.embedding OPERATOR(public.<#>) asked LIMIT wanted;
END $$;
