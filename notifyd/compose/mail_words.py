"""The words by which mail programs announce what their user did not write, in many languages.

Each question is about one line, or about the few from a line on. Lines come without controls, white
space single, and not longer than 2000 characters; the patterns bound what they look at themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_MOST_OF_A_LINE: Final = 300

_FORWARDED: Final = (
    "forwarded message|forwarded by|weitergeleitete nachricht|weitergeleitet von|message transféré"
    "|message réexpédié|mensaje reenviado|messaggio inoltrato|mensagem encaminhada"
    "|mensagem reencaminhada|doorgestuurd bericht|vidarebefordrat meddelande"
    "|wiadomość przekazana dalej|przekazana wiadomość|пересылаемое сообщение"
    "|转发的消息|転送メッセージ"
)
_begins_forwarded: Final = re.compile(
    r"(?:begin forwarded message|anfang der weitergeleiteten nachricht"
    r"|début du message (?:réexpédié|transféré)|inicio del mensaje reenviado"
    r"|inizio messaggio inoltrato|início da mensagem (?:re)?encaminhada"
    r"|begin doorgestuurd bericht)\s*:",
    re.IGNORECASE,
).fullmatch
_ORIGINAL: Final = (
    "original message|original appointment|ursprüngliche nachricht|original-?nachricht"
    "|message d['’]origine|message original|mensaje original|messaggio originale"
    "|mensagem original|oorspronkelijk bericht|ursprungligt meddelande|opprinnelig melding"
    "|oprindelig meddelelse|alkuperäinen viesti|oryginalna wiadomość|wiadomość oryginalna"
    "|исходное сообщение|původní zpráva|原始邮件|元のメッセージ|원본 메시지"
)


def _ruled(words: str) -> re.Pattern[str]:
    return re.compile(rf"[-_=]{{2,40}} ?(?:{words})\b[^-_=]{{0,80}}[-_=]{{0,40}}", re.IGNORECASE)


_forwarded, _original = _ruled(_FORWARDED), _ruled(_ORIGINAL)


def is_forward(line: str) -> bool:
    """Tell whether a forwarded message begins after `line`."""
    return bool(_forwarded.fullmatch(line[:_MOST_OF_A_LINE]) or _begins_forwarded(line))


def is_original(line: str) -> bool:
    """Tell whether the message that is answered to begins after `line`."""
    return _original.fullmatch(line[:_MOST_OF_A_LINE]) is not None


_field: Final = re.compile(
    r"\*{0,2}([^\W\d_][\w’' -]{0,24}?)\s?\*{0,2}\s?[:：]\*{0,2}(?:\s|$)"
).match
_is_from: Final = re.compile(
    "from|von|de|van|da|från|fra|lähettäjä|od|от|expéditeur|发件人|寄件者|差出人|送信者|보낸사람",
    re.IGNORECASE,
).fullmatch
_is_other: Final = re.compile(
    "sent|date|to|cc|subject|reply-to|gesendet|datum|an|betreff|envoyé|à|objet|enviado|fecha|para"
    "|asunto|data|inviato|a|oggetto|assunto|verzonden|aan|onderwerp|skickat|till|ämne|sendt|til|emne"
    "|lähetetty|päivä|vastaanottaja|aihe|wysłano|do|dw|temat|отправлено|дата|кому|тема|odesláno|komu"
    "|předmět|发送时间|日期|收件人|主题|送信日時|日時|宛先|件名|보낸날짜|받는사람|제목",
    re.IGNORECASE,
).fullmatch


def is_header_block(lines: Sequence[str], at: int) -> int:
    """How many lines from `at` on are the header fields of another message; 0 if none are."""
    senders, others, last = 0, 0, 0
    for number, line in enumerate(lines[at : at + 12], 1):
        found = _field(line[:_MOST_OF_A_LINE])
        if found and _is_from(found[1]):
            senders, last = senders + 1, number
        elif found and _is_other(found[1]):
            others, last = others + 1, number
        elif not line or not senders:  # otherwise a long field goes on in the next line
            break
    return last if senders and senders + others >= 3 else 0


_wrote: Final = re.compile(
    r"\b(?:wrote|writes|(?:schrieb|schreef|skrev)(?: .{1,80})?|a écrit|écrit|escribió|escreveu"
    r"|ha scritto|scrisse|kirjoitti|napisał(?:a|\(a\))?|пишет|написал(?:а|\(а\))?"
    r"|napsal(?:a|\(a\))?|a scris|yazdı) ?[:：]$"
    r"|(?:写道|寫道|のメッセージ|が書きました|님이 작성) ?[:：]$",
    re.IGNORECASE,
).search
_has_date_or_address: Final = re.compile(r"\d|@|<").search


def is_announced_quote(lines: Sequence[str], at: int) -> int:
    """How many lines (1 to 3) from `at` on announce a quote: "On ... A wrote:"; 0 if none do."""
    joined = ""
    for number, line in enumerate(lines[at : at + 3], 1):
        if not line or line.startswith(">"):
            return 0
        joined = f"{joined} {line}".strip()
        if len(joined) > _MOST_OF_A_LINE:
            return 0
        if _wrote(joined):
            return number if _has_date_or_address(joined) or _quoted(lines, at + number) else 0
        if not _opens_announcement(joined):
            return 0
    return 0


_opens_announcement: Final = re.compile(
    r"(?:on|am|le|el|il|em|op|den|dnia|w dniu|dne) .{0,60}?\d|.{0,80}\d{1,2}:\d\d"
    r"|.{0,200}<[^<>]{3,100}@",
    re.IGNORECASE,
).match


def _quoted(lines: Sequence[str], at: int) -> bool:
    return any(line.startswith(">") for line in lines[at : at + 2])


_footer: Final = re.compile(
    r"you (?:are receiving|received) this (?:message|e-?mail|newsletter|because)"
    r"|you['’]re receiving this|to unsubscribe\b|unsubscribe from this|click here to unsubscribe"
    r"|sie erhalten diese (?:nachricht|e-?mail|mail)|(?:vom )?newsletter abbestellen"
    r"|um sich abzumelden"
    r"|vous recevez ce(?:t|tte)? |se désabonner|pour vous désinscrire"
    r"|recibes? este (?:mensaje|correo)|para (?:darse|darte) de baja|per cancellare l['’]iscrizione"
    r"|if you (?:no longer )?wish to (?:unsubscribe|receive)|manage your (?:email )?preferences"
    r"|this e-?mail (?:and any attachments|message and any|is confidential)|confidentiality notice"
    r"|diese e-?mail enthält vertrauliche",
    re.IGNORECASE,
).match
_is_rule: Final = re.compile(r"[-_=*~]{10,}").fullmatch
_of_list: Final = re.compile(
    r"mailing list|unsubscribe|mailman|listinfo|abbestellen|désabonn|lista de correo|mailingliste?",
    re.IGNORECASE,
).search


def is_rule(line: str) -> bool:
    """Tell whether `line` is only drawn."""
    return _is_rule(line) is not None


def is_footer(lines: Sequence[str], at: int) -> bool:
    """Tell whether the footer of a list or a sender of many begins at `at`."""
    line = lines[at][:_MOST_OF_A_LINE]
    if _footer(line):
        return True
    if not is_rule(line):
        return False
    return any(_of_list(each[:_MOST_OF_A_LINE]) for each in lines[at + 1 : at + 5])


_remark: Final = re.compile(
    r"sent from my .{2,60}|get outlook for .{2,30}"
    r"|sent (?:from|via|with|using) .{0,40}?(?:mail|phone|pad|galaxy|samsung|android|outlook|mobile"
    r"|device|blackberry|tablet|\bapp\b|client|thunderbird|windows|spark).{0,40}"
    r"|(?:von|aus|mit) .{2,60} gesendet|gesendet (?:von|mit|aus|über) .{2,60}"
    r"|diese nachricht wurde von .{2,60} gesendet|outlook für .{2,30} beziehen"
    r"|holen sie sich outlook für .{2,30}|télécharger outlook pour .{2,30}"
    r"|envoyé (?:de|depuis|avec|à partir) .{2,60}|obtener outlook para .{2,30}"
    r"|enviad[oa] (?:desde|do|a partir do|con|com) .{2,60}|inviato dal? .{2,60}"
    r"|verzonden (?:vanaf|met|via) .{2,60}|skickat från .{2,60}|sendt fra .{2,60}"
    r"|lähetetty .{2,60}|wysłan[eo] z .{2,60}|отправлено с .{2,60}"
    r"|.{2,40}から送信|发自我的.{2,30}|나의 .{2,30}에서 보냄"
    # Banners of gateways, and what PGP puts around a signed text
    r"|\W{0,4}(?:caution|warning|external|achtung)\W{1,4}.{0,40}(?:external|outside|extern).{0,200}"
    r"|\[?external(?: e-?mail)?\]?|hash: sha\d{1,3}|-----begin pgp signed message-----",
    re.IGNORECASE,
).fullmatch


def is_remark_of_a_program(line: str) -> bool:
    """Tell whether `line` names the device it was written on, or is a gateway's banner."""
    return _remark(line[:_MOST_OF_A_LINE].rstrip(".")) is not None
