import re

import pytest

from deepsky.catalogue.queries import CLASSES, ROW_LIMIT, class_queries, page_sql, user_query
from deepsky.errors import ConfigError
from tests.sql_service import REFERENCE_SQL

NESTED = "select * from a where b = 'it''s; -- ORDER  BY' and c in (select top 3 c from d order by e)"
PAGED = ("objid", "specobjid")


def test_top_of_a_users_query_becomes_its_number_of_rows():
    query = user_query(REFERENCE_SQL, "my.sql")
    assert (query.limit, query.keys) == (100_000, PAGED)
    assert query.sql.startswith("SELECT p.objid,p.ra,")
    assert query.sql.endswith("g BETWEEN 0 AND 20")
    assert "--" not in query.sql
    assert "TOP" not in query.sql


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select * from a", ("select * from a", PAGED, None)),
        (" SELECT\n*\tFROM a ; \n -- done\n;;", ("SELECT * FROM a", PAGED, None)),
        ("/* SELECT 2 */ select distinct top (30) * from a", ("select distinct * from a", PAGED, 30)),
        ("select * from a order by ra desc", ("select * from a", PAGED, None)),
        ("select top 7 * from a order by ra;", ("select top 7 * from a order by ra", (), 7)),
        (f"select top {ROW_LIMIT + 1} * from a", ("select * from a", PAGED, ROW_LIMIT + 1)),
        (
            NESTED,
            (
                NESTED,
                PAGED,
                None,
            ),
        ),
        ("select * from a with (nolock)", ("select * from a with (nolock)", PAGED, None)),
        ("select *, [top], p.[into] from p", ("select *, [top], p.[into] from p", PAGED, None)),
    ],
)
def test_users_sql_is_made_fit_for_pages(sql, expected):
    query = user_query(sql, "my.sql")
    assert (query.sql, query.keys, query.limit) == expected


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("", "holds no SQL"),
        ("-- nothing but a comment", "holds no SQL"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "begins with 'WITH'"),
        ("update a set b = 1", "begins with 'update'"),
        ("SELECT * FROM a; DROP TABLE a", "several statements"),
        ("SELECT * FROM a SELECT * FROM b", "not one SELECT: it has 'SELECT'"),
        ("SELECT * FROM a UNION ALL SELECT * FROM b", "it has 'UNION'"),
        ("SELECT * INTO mydb.b FROM a", "it has 'INTO'"),
        ("SELECT TOP 10 PERCENT * FROM a", "TOP 10 PERCENT"),
        ("SELECT TOP 10 WITH TIES * FROM a ORDER BY b", "TOP 10 WITH"),
        ("SELECT TOP @n * FROM a", "TOP @n, which is no number"),
        ("SELECT TOP 0 * FROM a", "TOP 0, which is no number"),
        ("SELECT TOP 5", "TOP 5, which is no number"),
        (f"SELECT TOP {ROW_LIMIT + 1} * FROM a ORDER BY b", f"asks for TOP {ROW_LIMIT + 1} with ORDER BY"),
        ("SELECT * FROM a ORDER BY b OFFSET 5 ROWS", "OFFSET"),
        ("SELECT 'a FROM b", "never closed"),
        ("SELECT (a FROM b", "parentheses"),
        ("SELECT * FROM a) AS q; DROP TABLE (b", "parentheses"),
        ("SELECT bestobjid, ra FROM SpecObj", "does not select objid, dec, u,"),
        (REFERENCE_SQL.replace("p.objid,", ""), "does not select objid;"),
        (REFERENCE_SQL.replace(",s.class", "").replace("p.ra,", ""), "does not select ra, class;"),
    ],
)
def test_what_is_not_one_select_of_objects_is_one_line(sql, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        user_query(sql, "my.sql")
    assert str(caught.value).startswith("my.sql: ")
    assert "\n" not in str(caught.value)


def test_classes_are_drawn_in_the_same_order_of_fields():
    queries = class_queries(40)
    assert [query.label for query in queries] == list(CLASSES)
    assert {query.limit for query in queries} == {40}
    assert len({re.sub("'[A-Z]+'", "", query.sql) for query in queries}) == 1
    assert all(f"s.class = '{query.label}'" in query.sql for query in queries)


@pytest.mark.parametrize("n", [0, -1, ROW_LIMIT + 1])
def test_number_per_class_out_of_range(n):
    with pytest.raises(ConfigError, match=f"--objects-per-class: {n} is out of range; give 1 to {ROW_LIMIT}"):
        class_queries(n)


def test_a_page_follows_the_last_row_in_the_order_of_all_keys():
    query = user_query("select * from a", "my.sql")
    assert page_sql(query, None, 5) == "SELECT TOP 5 * FROM (select * from a) AS q ORDER BY q.objid, q.specobjid"
    assert page_sql(query, {"objid": "12", "specobjid": "7"}, 5) == (
        "SELECT TOP 5 * FROM (select * from a) AS q "
        "WHERE q.objid >= 12 AND (q.objid > 12 OR (q.specobjid > 7)) ORDER BY q.objid, q.specobjid"
    )
    assert "WHERE q.objid > 12 ORDER" in page_sql(query, {"objid": "12", "specobjid": "null"}, 5)
