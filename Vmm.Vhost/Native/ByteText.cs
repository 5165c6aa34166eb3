using System.Buffers;
using System.Text;

namespace Vmm.Vhost.Native;

/// <summary>Bytes of the kernel's (paths, arguments, variables), which need not be UTF-8, as text and back without loss: a byte that is none of UTF-8 becomes one of U+DC80 to
/// U+DCFF, the lone surrogates that no text has (Python's "surrogateescape", PEP 383).</summary>
public static class ByteText
{
    private const char First = '\uDC80', Last = '\uDCFF';
    private const int Base = 0xDC00;

    /// <summary>The text of <paramref name="bytes"/>.</summary>
    public static string Decode(ReadOnlySpan<byte> bytes)
    {
        var text = new StringBuilder(bytes.Length);
        Span<char> characters = stackalloc char[2];
        while (!bytes.IsEmpty)
        {
            if (Rune.DecodeFromUtf8(bytes, out Rune rune, out int consumed) == OperationStatus.Done)
            {
                text.Append(characters[..rune.EncodeToUtf16(characters)]);
            }
            else
            {
                text.Append((char)(Base + bytes[0]));
                consumed = 1;
            }
            bytes = bytes[consumed..];
        }
        return text.ToString();
    }

    /// <summary>The bytes of <paramref name="text"/>. Surrogates that <see cref="Decode"/> does not make become U+FFFD.</summary>
    public static byte[] Encode(string text)
    {
        if (!text.AsSpan().ContainsAnyInRange(First, Last))
            return Encoding.UTF8.GetBytes(text);
        var bytes = new List<byte>(text.Length);
        Span<byte> buffer = stackalloc byte[4];
        for (ReadOnlySpan<char> rest = text; !rest.IsEmpty;)
        {
            OperationStatus status = Rune.DecodeFromUtf16(rest, out Rune rune, out int consumed);
            if (status != OperationStatus.Done && rest[0] is >= First and <= Last)
            {
                bytes.Add((byte)(rest[0] - Base));
            }
            else
            {
                ReadOnlySpan<byte> encoded = buffer[..rune.EncodeToUtf8(buffer)];
                bytes.AddRange(encoded);
            }
            rest = rest[consumed..];
        }
        return [.. bytes];
    }
}
