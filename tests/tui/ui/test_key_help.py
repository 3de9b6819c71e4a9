"""Every key, and what it must never do."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from textual import events
from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.geometry import Offset
from textual.widgets import TextArea

from llama_chat.ui.key_help import KEY_GROUPS
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.prompt.paste_guard import SETTLE_SECONDS
from llama_chat.ui.screens.chat import ChatScreen
from llama_chat.ui.screens.help import HelpScreen
from llama_chat.ui.widgets.markdown_view import MarkdownView
from llama_chat.ui.widgets.question import Question
from tests.support.ui.driver import Driver, running
from tests.support.ui.sample import saved_conversation
from tests.support.ui.scripted_backend import ScriptedBackend


def feed(chat: Driver, text: str) -> None:
    """Keys as a terminal without bracketed paste delivers a paste: all at once."""
    now = time.monotonic()
    for character in text:
        key = events.Key({"\r": "enter", " ": "space"}.get(character, character), character)
        key.time = now
        chat.prompt.post_message(key)


def answering() -> ScriptedBackend:
    return ScriptedBackend(answers=[["half ", "whole"]], gate=asyncio.Event())


class TestWriting:
    @pytest.mark.parametrize("key", ["ctrl+j", "shift+enter", "alt+enter"])
    async def test_breaks_the_line(self, key: str) -> None:
        async with running() as chat:
            await chat.press("a", key, "b")
            assert chat.prompt.text == "a\nb"
            assert chat.messages == []

    async def test_keys_that_come_fast_take_effect_in_their_order(self) -> None:
        async with running() as chat:
            feed(chat, "ab")
            for key in ("backspace", "ctrl+j", "left", "left"):
                chat.prompt.post_message(events.Key(key, None))
            feed(chat, "c")
            await chat.until(lambda: chat.prompt.text == "ca\n")

    async def test_the_box_grows_with_its_text_up_to_a_limit(self) -> None:
        async with running() as chat:
            for lines in (1, 3, 50):
                chat.prompt.put("\n".join("x" * lines))
                await chat.until(lambda: chat.prompt.size.height == min(lines, 10))  # noqa: B023

    async def test_a_bracketed_paste_is_never_sent(self) -> None:
        async with running() as chat:
            chat.app.post_message(events.Paste("one\r\ntwo\rthree\x1b[31m\n"))
            await chat.until(lambda: chat.prompt.text == "one\ntwo\nthree␛[31m\n")
            assert chat.messages == []

    async def test_a_paste_of_several_lines_without_brackets_is_never_sent(self) -> None:
        async with running() as chat:
            feed(chat, "one\rtwo\r")
            await chat.until(lambda: chat.prompt.text == "one\ntwo\n")
            await chat.pilot.pause(3 * SETTLE_SECONDS)
            assert chat.messages == []

    async def test_a_line_that_comes_at_once_with_its_enter_is_sent(self) -> None:
        async with running() as chat:
            feed(chat, "hello\r")
            await chat.answered()
            assert chat.messages[0] == ("user", "hello")

    async def test_arrows_recall_in_the_first_and_last_line_only(self) -> None:
        async with running() as chat:
            await chat.send("older\nprompt")
            await chat.answered()
            chat.prompt.put("draft")
            await chat.press("up")
            assert chat.prompt.text == "older\nprompt"
            await chat.press("up")
            assert chat.prompt.text == "older\nprompt"
            assert chat.prompt.cursor_location[0] == 0
            await chat.press("down", "down")
            assert chat.prompt.text == "draft"

    async def test_undo_brings_back_what_was_cleared(self) -> None:
        async with running() as chat:
            chat.prompt.put("draft")
            await chat.press("ctrl+c", "ctrl+underscore")
            assert chat.prompt.text == "draft"


class TestInterrupt:
    async def test_clears_the_draft_which_can_be_recalled(self) -> None:
        async with running() as chat:
            chat.prompt.put("draft")
            await chat.press("ctrl+c")
            assert chat.prompt.text == ""
            await chat.press("up")
            assert chat.prompt.text == "draft"

    async def test_clears_before_it_stops_before_it_asks_before_it_quits(self) -> None:
        async with running(answering()) as chat:
            await chat.send("go")
            await chat.until(lambda: chat.backend.delivered == 1)
            chat.prompt.put("draft")
            await chat.press("ctrl+c")
            assert chat.chat.is_answering
            await chat.press("ctrl+c")
            await chat.answered()
            await chat.press("ctrl+c")
            assert "Ctrl+C again quits" in chat.line
            assert chat.app.is_running
            await chat.press("ctrl+c")
            await chat.until(lambda: not chat.app.is_running)

    async def test_copies_a_selection_and_clears_nothing(self) -> None:
        async with running() as chat:
            chat.prompt.put("draft")
            await chat.press("shift+home", "ctrl+c")
            assert chat.app.clipboard == "draft"
            assert chat.prompt.text == "draft"


class TestLeaving:
    async def test_ctrl_d_quits_only_when_empty(self) -> None:
        async with running() as chat:
            chat.prompt.put("ab")
            await chat.press("home", "ctrl+d")
            assert chat.prompt.text == "b"
            await chat.press("ctrl+d", "ctrl+d")
            await chat.until(lambda: not chat.app.is_running)

    async def test_escape_never_leaves(self) -> None:
        async with running() as chat:
            chat.prompt.put("draft")
            await chat.press("escape", "escape", "escape")
            assert chat.app.is_running
            assert chat.prompt.text == "draft"


class TestMessages:
    async def test_are_reached_and_left_by_keys(self) -> None:
        async with running() as chat:
            await chat.send("one")
            await chat.answered()
            await chat.press("shift+tab", "up")
            assert chat.has_keys(chat.view.query_one(Question))
            await chat.press("down", "down")
            assert chat.has_keys(chat.prompt)
            await chat.press("shift+tab", "escape")
            assert chat.has_keys(chat.prompt)
            await chat.press("shift+tab", "tab")
            assert chat.has_keys(chat.prompt)

    @pytest.mark.parametrize("key", ["c", "y"])
    async def test_are_copied_as_they_were_written(self, key: str) -> None:
        async with running(ScriptedBackend(answers=[["**bold** `code`"]])) as chat:
            await chat.send("one")
            await chat.answered()
            await chat.press("shift+tab", key)
            await chat.until(lambda: chat.app.clipboard == "**bold** `code`")
            assert "copied" in chat.line

    async def test_ask_again(self) -> None:
        async with running(ScriptedBackend(answers=[["one"], ["two"]])) as chat:
            await chat.send("Say")
            await chat.answered()
            await chat.press("shift+tab", "r")
            await chat.until(lambda: chat.messages == [("user", "Say"), ("model", "two")])
            assert chat.has_keys(chat.prompt)

    async def test_a_click_leaves_the_keys_with_the_prompt(self) -> None:
        async with running() as chat:
            await chat.send("one")
            await chat.answered()
            await chat.pilot.click(Question)
            assert chat.has_keys(chat.prompt)

    async def test_the_mouse_selects_and_ctrl_c_copies(self) -> None:
        async with running(ScriptedBackend(answers=[["- one two\n- three"]])) as chat:
            await chat.send("Say")
            await chat.answered()
            await chat.pilot.pause(0.05)
            await chat.pilot.mouse_down(MarkdownView, offset=Offset(2, 0))
            await chat.pilot.hover(MarkdownView, offset=Offset(4, 1))
            await chat.pilot.mouse_up(MarkdownView, offset=Offset(4, 1))
            await chat.press("ctrl+c")
            await chat.until(lambda: chat.app.clipboard)
            assert chat.app.clipboard == "one two\n• thr"


class TestScrolling:
    async def test_the_view_follows_until_the_person_scrolls(self) -> None:
        backend = ScriptedBackend(answers=[["line\n\n" * 40, "more\n\n" * 40, ""]], gate=asyncio.Event())
        async with running(backend) as chat:
            await chat.send("go")
            await chat.until(lambda: chat.view.virtual_size.height > 150)
            await chat.until(lambda: chat.view.is_vertical_scroll_end)
            await chat.press("pageup")
            here = chat.view.scroll_y
            chat.view.query(MarkdownView).last().append("even more\n\n" * 20)
            await chat.pilot.pause(0.1)
            assert chat.view.scroll_y == here
            await chat.press("pagedown", "pagedown", "pagedown", "pagedown")
            chat.view.query(MarkdownView).last().append("and more\n\n" * 20)
            await chat.until(lambda: chat.view.is_vertical_scroll_end)
            assert chat.view.scroll_y > here

    async def test_a_short_conversation_begins_at_the_top(self) -> None:
        async with running() as chat:
            await chat.send("one")
            await chat.answered()
            assert "one" in "\n".join(chat.screen_text.splitlines()[:3])

    async def test_another_size_keeps_everything_in_sight(self) -> None:
        async with running(ScriptedBackend(answers=[["word " * 400]])) as chat:
            await chat.send("go")
            await chat.answered()
            for size in ((40, 12), (200, 60), (20, 6), (80, 24)):
                await chat.pilot.resize_terminal(*size)
                await chat.until(lambda: chat.view.is_vertical_scroll_end)
                assert "❯" in chat.screen_text
                assert "word" in chat.screen_text

    async def test_the_smallest_terminals_break_nothing(self) -> None:
        history, conversation = saved_conversation()
        async with running(history=history, conversation=conversation) as chat:
            for size in ((1, 1), (2, 3), (5, 2), (10, 4), (3, 40), (80, 1), (80, 24)):
                await chat.pilot.resize_terminal(*size)
                await chat.pilot.pause()
            assert "Challenger" in chat.screen_text


class TestWindows:
    async def test_help_names_all_keys(self) -> None:
        async with running(size=(120, 50)) as chat:
            await chat.press("f1")
            await chat.until(lambda: isinstance(chat.app.screen, HelpScreen))
            await chat.pilot.pause()
            assert all(key in chat.screen_text for group in KEY_GROUPS for key, _ in group.keys)
            await chat.press("escape")
            assert chat.has_keys(chat.prompt)

    @pytest.mark.parametrize("bindings", [TextArea, PromptArea, ChatScreen, App])
    def test_help_has_every_key_that_is_bound(self, bindings: type[DOMNode]) -> None:
        bound = {key for binding in bindings.BINDINGS if isinstance(binding, Binding) for key in binding.key.split(",")}
        wanted = {key.title() for key in bound if re.fullmatch(r"ctrl\+[a-z]|f\d+", key)} - {"F1"}
        shown = " ".join(key for group in KEY_GROUPS for key, _ in group.keys).split()
        assert wanted <= set(shown)

    async def test_help_scrolls_where_it_is_longer_than_the_screen(self) -> None:
        async with running(size=(80, 24)) as chat:
            await chat.press("f1")
            await chat.until(lambda: "Enter" in chat.screen_text and isinstance(chat.app.screen, HelpScreen))
            assert "Ctrl+Z" not in chat.screen_text
            await chat.press(*["down"] * 20)
            await chat.until(lambda: "Ctrl+Z" in chat.screen_text)

    @pytest.mark.parametrize("key", ["escape", "f1", "q", "ctrl+c"])
    async def test_help_closes(self, key: str) -> None:
        async with running() as chat:
            await chat.press("f1")
            await chat.until(lambda: isinstance(chat.app.screen, HelpScreen))
            await chat.press(key)
            await chat.until(lambda: chat.app.screen is chat.chat)

    async def test_the_palette_has_the_actions(self) -> None:
        async with running() as chat:
            await chat.send("one")
            await chat.answered()
            await chat.press("ctrl+p")
            await chat.until(lambda: "New chat" in chat.screen_text)
            await chat.press(*"new chat")
            await chat.until(lambda: "Ask again" not in chat.screen_text)
            await chat.press("enter")
            await chat.until(lambda: chat.messages == [])
