using Vmm.Serial;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary>The value of <c>--serial</c>: <c>tty</c>, <c>null</c>, <c>off</c>, <c>file=PATH[,truncate=on]</c> or <c>socket=PATH</c>.</summary>
internal static class SerialOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--serial";

    /// <summary>What the serial port is connected to.</summary>
    /// <exception cref="UsageException">It is none of the above, or the path cannot be one.</exception>
    public static SerialConfig Parse(string text)
    {
        if (OutputFileValue.Fits(text))
        {
            OutputFileValue file = OutputFileValue.Parse(Name, text);
            return new SerialConfig(SerialKind.File, file.Path, file.Truncate);
        }
        (SerialKind kind, string? path) = text switch
        {
            "tty" => (SerialKind.Tty, null),
            "null" => (SerialKind.Null, null),
            "off" => (SerialKind.Off, null),
            _ when text.StartsWith("socket=", StringComparison.Ordinal) => (SerialKind.Socket, KeyValueList.Parse(Name, text, "socket").Find("socket")!.Value.Text),
            _ => throw new OptionValue(Name, null, text).Refuse("is not allowed: choose one of tty, null, off, file=PATH, socket=PATH"),
        };
        if (path is "")
            throw new OptionValue(Name, null, text).Refuse("has no path");
        if (kind == SerialKind.Socket && ByteText.Encode(path!).Length > UnixSocket.MaxPathBytes)
            throw new OptionValue(Name, null, text).Refuse($"is too long: the path of a socket has at most {UnixSocket.MaxPathBytes} bytes");
        return new SerialConfig(kind, path);
    }
}
